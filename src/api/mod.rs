//! WHAT USERS WRITE: the custom resource, its status, and the Kubernetes objects that a compile reads. Plain data with
//! serde and schemas, no behaviour beyond reading values.
