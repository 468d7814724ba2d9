module wssgate.io/tests/cluster/gateway-api

go 1.24.0

// For its ReferenceGrant alone, of a release that knows v1beta1 only. `go mod tidy` would drop the line: no code uses it.
require sigs.k8s.io/gateway-api v1.4.0
