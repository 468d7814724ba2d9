//! Errors of the Kubernetes client as text for logs, events and conditions. Knows the client's errors only.

/// The text where a request to the API server timed out.
pub const NO_ANSWER: &str = "the API server does not answer";

/// An error of the client as text. Nothing of an answer's body but what the API server itself says of a failure: a body
/// may hold Secrets.
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => format!("the API server answered {}", status.code),
        kube::Error::Api(status) => format!("the API server answered {}: {}", status.code, cut(&status.message)),
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => "the API server's answer could not be read".to_owned(),
        error => cut(&causes(error)),
    }
}

/// An error with its causes, each thing once.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(512).collect()
}
