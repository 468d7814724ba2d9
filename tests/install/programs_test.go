// Package install tests what people install wssgate with: the chart, the manifests, the commands of docs/install.md.
// It runs the real helm, kubectl, kubeconform and kube-apiserver that scripts/cluster-programs builds.
//
// UPDATE=1 go test ./... writes the golden files anew.
package install

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// root is the repository.
const root = "../.."

// object is a Kubernetes object.
type object = map[string]any

// program finds a program of scripts/cluster-programs; without it a test fails, it is never left out in silence.
func program(t testing.TB, name string) string {
	t.Helper()
	cache := os.Getenv("WSSGATE_CLUSTER_CACHE")
	if cache == "" {
		cache = "target/cluster"
	}
	// A relative path counts from the root of the repository, as in the script.
	if !filepath.IsAbs(cache) {
		cache = filepath.Join(root, cache)
	}
	path, err := filepath.Abs(filepath.Join(cache, "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is missing: run scripts/cluster-programs (%v)", name, err)
	}
	return path
}

// environment of the programs that tests run: a home of their own, nothing of the person's.
func environment(t testing.TB, more ...string) []string {
	home := t.TempDir()
	return append([]string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + home}, more...)
}

// try runs a program of ours and gives what it printed.
func try(t testing.TB, input string, name string, arguments ...string) (string, string, error) {
	t.Helper()
	command := exec.Command(program(t, name), arguments...)
	command.Dir = root
	command.Env = environment(t)
	command.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	return stdout.String(), stderr.String(), err
}

// run runs a program of ours that has to succeed.
func run(t testing.TB, name string, arguments ...string) string {
	t.Helper()
	stdout, stderr, err := try(t, "", name, arguments...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(arguments, " "), err, stdout, stderr)
	}
	return stdout
}

// documents reads the objects of a YAML stream.
func documents(t testing.TB, text string) []object {
	t.Helper()
	var all []object
	for _, part := range strings.Split("\n"+text, "\n---") {
		var document object
		if err := yaml.Unmarshal([]byte(part), &document); err != nil {
			t.Fatalf("%v\n%s", err, part)
		}
		if len(document) > 0 {
			all = append(all, document)
		}
	}
	return all
}

// at follows keys and indices through objects and lists; nil where there is nothing.
func at(value any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			members, _ := value.(object)
			value = members[step]
		case int:
			items, _ := value.([]any)
			if step >= len(items) {
				return nil
			}
			value = items[step]
		}
	}
	return value
}

// named says what an object is called.
func named(o object) string {
	name := fmt.Sprint(at(o, "metadata", "name"))
	if namespace := at(o, "metadata", "namespace"); namespace != nil {
		name = fmt.Sprint(namespace, "/", name)
	}
	return fmt.Sprint(o["kind"], " ", name)
}

// of gives the objects of a kind.
func of(all []object, kind string) []object {
	var found []object
	for _, o := range all {
		if o["kind"] == kind {
			found = append(found, o)
		}
	}
	return found
}

// read gives a file of the repository.
func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// golden compares a file of the repository with what it shall be, or writes it.
func golden(t *testing.T, path, expected string) {
	t.Helper()
	if os.Getenv("UPDATE") != "" {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(expected), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, _ := os.ReadFile(filepath.Join(root, path))
	if string(found) != expected {
		t.Errorf("%s is stale; run UPDATE=1 go test ./... in tests/install, read the difference and commit it", path)
	}
}

// valuesFiles gives the names of the values that the chart is tested with.
func valuesFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "charts/wssgate/ci/*-values.yaml"))
	if err != nil || len(files) < 7 {
		t.Fatalf("%v %v", files, err)
	}
	var names []string
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), "-values.yaml"))
	}
	return names
}

// render gives what Helm makes of the chart with a values file and more flags.
func render(t testing.TB, values string, flags ...string) string {
	t.Helper()
	arguments := []string{
		"template", "wssgate", "charts/wssgate", "--namespace", "wssgate",
		"--values", "charts/wssgate/ci/" + values + "-values.yaml",
	}
	return run(t, "helm", append(arguments, flags...)...)
}
