package install

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
	"sigs.k8s.io/yaml"
)

// workflow reads a file of .github/workflows. YAML reads its key `on` as true.
func workflow(t *testing.T, name string) object {
	t.Helper()
	var o object
	if err := yaml.UnmarshalStrict([]byte(read(t, ".github/workflows/"+name)), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// steps gives the scripts of a workflow by the name of their step; without a name, by themselves.
func steps(o object) map[string]string {
	found := map[string]string{}
	jobs, _ := o["jobs"].(object)
	for _, job := range jobs {
		list, _ := at(job, "steps").([]any)
		for _, step := range list {
			run, _ := at(step, "run").(string)
			name, _ := at(step, "name").(string)
			if name == "" {
				name = run
			}
			if run != "" {
				found[name] = run
			}
		}
	}
	return found
}

// Keys, expressions, runners, and the inputs of the actions that are used.
func TestNoFaultIsFoundInTheWorkflows(t *testing.T) {
	linter, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// The linter knows the inputs of an action by its version, not by the digest of a commit.
	digest := regexp.MustCompile(`@[0-9a-f]{40} # (v[0-9]+)\S*`)
	faults := func(name, text string) []*actionlint.Error {
		found, err := linter.Lint(name, digest.ReplaceAll([]byte(text), []byte("@$1")), nil)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	files, err := filepath.Glob(filepath.Join(root, ".github/workflows/*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v %v", files, err)
	}
	for _, file := range files {
		name := ".github/workflows/" + filepath.Base(file)
		for _, fault := range faults(name, read(t, name)) {
			t.Error(fault)
		}
	}
	// It is an oracle only if it says no.
	if broken := strings.Replace(read(t, ".github/workflows/release.yaml"), "push: true", "pish: true", 1); len(faults("broken.yaml", broken)) != 1 {
		t.Error("an input that an action does not have passes")
	}
}

func TestTheWorkflowRunsTheTestCommandOfTheREADMEWithEveryTier(t *testing.T) {
	tiers := map[string]bool{}
	for _, run := range steps(workflow(t, "test.yaml")) {
		if strings.Contains(run, "scripts/test") {
			for _, tier := range strings.Split(regexp.MustCompile(`WSSGATE_TEST_TIERS=(\S+)`).FindStringSubmatch(run)[1], ",") {
				tiers[tier] = true
			}
		}
	}
	for _, tier := range []string{"files", "api", "node"} {
		if !tiers[tier] {
			t.Errorf("no job runs the tier %s", tier)
		}
	}
	if !strings.Contains(read(t, "README.md"), "scripts/test") {
		t.Error("the README has another command")
	}
	oldest := regexp.MustCompile(`rust-version = "(.+)"`).FindStringSubmatch(read(t, "Cargo.toml"))[1]
	if _, is := steps(workflow(t, "test.yaml"))["cargo +"+oldest+" check --locked"]; !is {
		t.Errorf("no job builds with Rust %s, which Cargo.toml promises", oldest)
	}
}

// The release's own scripts run here, but for what writes to a registry.
func TestTheReleasePacksTheChartOfThisVersionWithItsImage(t *testing.T) {
	release := steps(workflow(t, "release.yaml"))
	version := regexp.MustCompile(`(?m)^version = "(.+)"`).FindStringSubmatch(read(t, "Cargo.toml"))[1]
	clone := t.TempDir()
	if err := os.CopyFS(filepath.Join(clone, "charts"), os.DirFS(filepath.Join(root, "charts"))); err != nil {
		t.Fatal(err)
	}
	// A release turns the heading of what is unreleased into its own.
	changes := strings.Replace(read(t, "CHANGELOG.md"), "## [Unreleased]", "## ["+version+"] - 2026-01-01", 1)
	for file, text := range map[string]string{"CHANGELOG.md": changes, "Cargo.toml": read(t, "Cargo.toml")} {
		write(t, filepath.Join(clone, file), text)
	}
	script := func(step, tag string) error {
		t.Helper()
		text, is := release[step]
		if !is {
			t.Fatalf("no step %q", step)
		}
		command := exec.Command("bash", "-euo", "pipefail", "-c", text)
		command.Dir = clone
		command.Env = environment(t, "GITHUB_REF_NAME="+tag, "IMAGE=registry.example.com/wssgate")
		command.Env = append(command.Env, "PATH="+filepath.Dir(program(t, "helm"))+":"+os.Getenv("PATH"))
		output, err := command.CombinedOutput()
		t.Logf("%s: %s", step, output)
		return err
	}
	const gate = "The tag is the version of the binary and of the chart"
	if err := script(gate, "v"+version); err != nil {
		t.Error(err)
	}
	if script(gate, "v9.9.9") == nil {
		t.Error("a tag of another version passes")
	}
	if err := script("The chart, with the image that belongs to it", "v"+version); err != nil {
		t.Fatal(err)
	}
	rendered := run(t, "helm", "template", "wssgate", filepath.Join(clone, "out", "wssgate-"+version+".tgz"))
	image := at(of(documents(t, rendered), "Deployment")[0], "spec", "template", "spec", "containers", 0, "image")
	if image != "registry.example.com/wssgate:"+version {
		t.Errorf("%v", image)
	}
}

// Nobody can run a release here; that it makes what it shall is what can be read in it.
func TestAReleaseHasImagesOfBothKindsTheirListsAndTheChart(t *testing.T) {
	release := workflow(t, "release.yaml")
	runners := map[string]string{}
	kinds, _ := at(release, "jobs", "image", "strategy", "matrix", "include").([]any)
	for _, kind := range kinds {
		runners[at(kind, "arch").(string)] = at(kind, "runner").(string)
	}
	if len(runners) != 2 || runners["amd64"] != "ubuntu-24.04" || runners["arm64"] != "ubuntu-24.04-arm" ||
		at(release, "jobs", "image", "runs-on") != "${{ matrix.runner }}" {
		t.Errorf("%v", runners)
	}
	with := func(job, action string) any {
		list, _ := at(release, "jobs", job, "steps").([]any)
		for _, step := range list {
			if uses, _ := at(step, "uses").(string); strings.HasPrefix(uses, action+"@") {
				return at(step, "with")
			}
		}
		t.Errorf("no %s in %s", action, job)
		return nil
	}
	if tag := at(with("image", "docker/build-push-action"), "tags"); !strings.HasSuffix(tag.(string), "-${{ matrix.arch }}") {
		t.Errorf("both images have the name %s", tag)
	}
	if file := at(with("image", "anchore/sbom-action"), "output-file"); file != "wssgate-${{ matrix.arch }}.spdx.json" {
		t.Errorf("both lists are %s", file)
	}
	if at(with("image", "actions/upload-artifact"), "path") != at(with("image", "anchore/sbom-action"), "output-file") ||
		at(with("publish", "actions/download-artifact"), "path") != "out" {
		t.Error("the lists do not come to the release")
	}
	attested := map[any]bool{}
	for _, job := range []string{"image", "publish"} {
		list, _ := at(release, "jobs", job, "steps").([]any)
		for _, step := range list {
			if uses, _ := at(step, "uses").(string); strings.HasPrefix(uses, "actions/attest-") {
				attested[at(step, "with", "subject-digest")] = true
				attested[at(step, "with", "subject-path")] = true
				attested[at(step, "with", "sbom-path")] = true
			}
		}
	}
	for _, subject := range []string{"${{ steps.push.outputs.digest }}", "${{ steps.both.outputs.digest }}", "out/*", "wssgate-${{ matrix.arch }}.spdx.json"} {
		if !attested[subject] {
			t.Errorf("nothing attests %s", subject)
		}
	}
	scripts := steps(release)
	if both := scripts["One name for both images"]; !strings.Contains(both, "-amd64\"") || !strings.Contains(both, "-arm64\"") {
		t.Errorf("%s", both)
	}
	if !strings.Contains(scripts["The chart's place"], "helm push out/wssgate-*.tgz") || !strings.Contains(scripts["The release"], " out/*\n") {
		t.Error("the chart or the files are not published")
	}
}
