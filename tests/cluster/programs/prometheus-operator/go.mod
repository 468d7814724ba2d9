module wssgate.io/tests/cluster/prometheus-operator

go 1.24.0

// For its definitions of ServiceMonitor and PrometheusRule. `go mod tidy` would drop the line: no code uses it.
require github.com/prometheus-operator/prometheus-operator v0.85.0
