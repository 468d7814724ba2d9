package install

import (
	"path/filepath"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// kstatus is how Flux, and Helm with --wait, read an object. The statuses are those that Argo CD's script is tested with.
func TestFluxAndHelmSeeTheStatusOfARoute(t *testing.T) {
	expected := map[string]status.Status{
		"created.yaml":         status.InProgressStatus,
		"stale.yaml":           status.InProgressStatus,
		"issuing.yaml":         status.InProgressStatus,
		"backend-missing.yaml": status.InProgressStatus,
		"ready.yaml":           status.CurrentStatus,
		"warnings.yaml":        status.CurrentStatus,
		"conflict.yaml":        status.FailedStatus,
		"not-permitted.yaml":   status.FailedStatus,
		// What is away or being deleted.
		"last-good.yaml":       status.InProgressStatus,
		"renewal-failing.yaml": status.CurrentStatus,
		"deleting.yaml":        status.TerminatingStatus,
	}
	files, _ := filepath.Glob(filepath.Join(root, "manifests/argocd/testdata/*.yaml"))
	if len(files) != len(expected) {
		t.Errorf("%d files, %d expectations", len(files), len(expected))
	}
	for _, file := range files {
		name := filepath.Base(file)
		route := documents(t, read(t, "manifests/argocd/testdata/"+name))[0]
		if found := kstatus(t, route); found != expected[name] {
			t.Errorf("%s: %s, not %s", name, found, expected[name])
		}
	}
}

// kstatus gives an object's status as Flux reads it.
func kstatus(t testing.TB, o object) status.Status {
	t.Helper()
	result, err := status.Compute(&unstructured.Unstructured{Object: integers(o).(object)})
	if err != nil {
		t.Fatalf("%s: %v", named(o), err)
	}
	return result.Status
}

// integers gives numbers the type that the API machinery expects.
func integers(v any) any {
	switch v := v.(type) {
	case float64:
		return int64(v)
	case []any:
		for i := range v {
			v[i] = integers(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = integers(v[key])
		}
	}
	return v
}
