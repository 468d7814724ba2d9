package install

import (
	"os/exec"
	"testing"
)

// script runs a script of the repository with our helm.
func script(t *testing.T, path string, arguments ...string) {
	t.Helper()
	command := exec.Command("./"+path, arguments...)
	command.Dir = root
	command.Env = environment(t, "HELM="+program(t, "helm"))
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", path, err, output)
	}
}
