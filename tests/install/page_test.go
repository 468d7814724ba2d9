package install

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const page = "docs/install.md"

// blocks gives the fenced blocks of a language, in the order of the page.
func blocks(text, language string) []string {
	var found []string
	for _, match := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	return found
}

// The objects of Argo CD and Flux name a chart and values; those are what can be wrong of ours.
func TestThePagesGitOpsObjectsNameAChartAndValuesThatHelmTakes(t *testing.T) {
	seen := map[string]bool{}
	for _, block := range blocks(read(t, page), "yaml") {
		for _, o := range documents(t, block) {
			kind := o["kind"].(string)
			seen[kind] = true
			var chart, values any
			switch kind {
			case "Application":
				chart, values = at(o, "spec", "source", "path"), at(o, "spec", "source", "helm", "valuesObject")
			case "HelmRelease":
				chart, values = at(o, "spec", "chart", "spec", "chart"), at(o, "spec", "values")
			default:
				continue
			}
			text, err := yaml.Marshal(values)
			if err != nil {
				t.Fatal(err)
			}
			rendered, stderr, err := try(t, string(text), "helm", "template", "wssgate", chart.(string), "--namespace", "wssgate", "--values", "-")
			if err != nil {
				t.Fatalf("%s: %v %s", kind, err, stderr)
			}
			deployment := of(documents(t, rendered), "Deployment")[0]
			if at(deployment, "spec", "replicas") != 3.0 ||
				!strings.HasPrefix(fmt.Sprint(at(deployment, "spec", "template", "spec", "containers", 0, "image")), "registry.example.com/wssgate:") {
				t.Errorf("%s: the values do not arrive", kind)
			}
		}
	}
	for _, kind := range []string{"Application", "GitRepository", "HelmRelease", "Kustomization"} {
		if !seen[kind] {
			t.Errorf("no %s", kind)
		}
	}
}

// The page's table of health is what Argo CD's script and kstatus say.
func TestThePageTellsTheHealthThatToolsSee(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\| \[.+\]\(\.\./manifests/argocd/testdata/(.+)\) \| (\w+) \| (\w+) \|$`).FindAllStringSubmatch(read(t, page), -1)
	files, _ := filepath.Glob(filepath.Join(root, "manifests/argocd/testdata/*.yaml"))
	if len(rows) != len(files) {
		t.Errorf("%d rows for %d files", len(rows), len(files))
	}
	for _, row := range rows {
		route := documents(t, read(t, "manifests/argocd/testdata/"+row[1]))[0]
		if found, _ := health(t, read(t, "manifests/argocd/health.lua"), route); found != row[2] {
			t.Errorf("%s: Argo CD says %s, the page %s", row[1], found, row[2])
		}
		if found := kstatus(t, route); string(found) != row[3] {
			t.Errorf("%s: kstatus says %s, the page %s", row[1], found, row[3])
		}
	}
}
