package install

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

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

// A newcomer who copies every command of the page, in its order, on a cluster with cert-manager's and Gateway API's kinds.
func TestEveryCommandOfThePageWorksAsItStandsThere(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.definitions(t)
	cluster := s.controlled(t)
	// Argo CD's own settings are there before ours.
	s.namespaces(t, "argocd")
	s.run(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: argocd-cm, namespace: argocd}", "kubectl", "apply", "-f", "-")

	clone, programs := t.TempDir(), t.TempDir()
	for _, folder := range []string{"charts", "manifests"} {
		if err := os.CopyFS(filepath.Join(clone, folder), os.DirFS(filepath.Join(root, folder))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"kubectl", "helm"} {
		if err := os.Symlink(program(t, name), filepath.Join(programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	after := map[string]func(output string){
		"kubectl --namespace demo get swsr echo\n": func(output string) {
			if fields := strings.Fields(output[strings.LastIndex(output, "\necho")+1:]); len(fields) < 4 || fields[3] != "True" {
				t.Errorf("the route does not show that it is ready: %v", fields)
			}
			holder := s.kubectl(t, "get", "lease", "wssgate", "-n", "wssgate", "-o", "jsonpath={.spec.holderIdentity}")
			if !strings.HasPrefix(holder, "wssgate-") {
				t.Errorf("nobody leads: %q", holder)
			}
		},
		"helm upgrade wssgate charts/wssgate --namespace wssgate --reset-then-reuse-values --set settings.perAddress=50": func(string) {
			settings := s.kubectl(t, "get", "configmap", "wssgate", "-n", "wssgate", "-o", "yaml")
			if !strings.Contains(settings, "perAddress: 100") {
				t.Errorf("not rolled back:\n%s", settings)
			}
			// The route was served all the time by those who took turns.
			if s.kubectl(t, "get", "swsr", "echo", "-n", "demo", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`) != "True" {
				t.Error("the route is no longer ready")
			}
		},
		"kubectl apply -f manifests/samples/issuer.yaml": func(string) {
			// It belongs to the route and goes with it.
			owner := s.kubectl(t, "get", "certificate", "live-tls", "-n", "apps", "-o", "jsonpath={.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name} {.spec.dnsNames}")
			if owner != `SecureWebSocketRoute/live ["live.example.com"]` {
				t.Errorf("%s", owner)
			}
		},
		"helm uninstall wssgate --namespace wssgate": func(string) {
			if _, stderr, err := s.try(t, "", "kubectl", "get", "swsr", "-A"); err == nil {
				t.Errorf("the definition is still there: %s", stderr)
			}
		},
		"kubectl --namespace argocd patch configmap": func(string) {
			script := s.kubectl(t, "get", "configmap", "argocd-cm", "-n", "argocd", "-o",
				`jsonpath={.data.resource\.customizations\.health\.wssgate\.io_SecureWebSocketRoute}`)
			if strings.TrimSpace(script) != strings.TrimSpace(read(t, "manifests/argocd/health.lua")) {
				t.Errorf("Argo CD would run another script:\n%s", script)
			}
		},
	}
	commands := blocks(read(t, page), "sh")
	if len(commands) < 12 {
		t.Fatalf("%d blocks of commands", len(commands))
	}
	checked := 0
	for _, block := range commands {
		began := time.Now()
		limit, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		command := exec.CommandContext(limit, "bash", "-euo", "pipefail", "-c", block)
		command.Dir = clone
		command.Env = environment(t, "KUBECONFIG="+s.kubeconfig)
		for i, variable := range command.Env {
			if strings.HasPrefix(variable, "PATH=") {
				command.Env[i] = "PATH=" + programs + ":" + os.Getenv("PATH")
			}
		}
		output, err := command.CombinedOutput()
		cancel()
		if err != nil {
			pods, _, _ := s.try(t, "", "kubectl", "get", "pods,deployments,swsr", "-A", "-o", "wide")
			t.Fatalf("%s\n%v\n%s\n%s\n%s", block, err, output, pods, cluster.story())
		}
		t.Logf("%s%s(%s)", block, output, time.Since(began).Round(time.Millisecond))
		for part, check := range after {
			if strings.Contains(block, part) {
				checked++
				check(string(output))
			}
		}
	}
	if checked != len(after) {
		t.Errorf("%d of %d checks ran: the page has other commands", checked, len(after))
	}
}

// What no test can run here is a short list: it needs a container engine, or a node.
func TestWhatThePageDoesNotLetTheTestsRunIsKnown(t *testing.T) {
	var first []string
	for _, block := range blocks(read(t, page), "console") {
		for _, line := range strings.Split(strings.ReplaceAll(block, "\\\n", ""), "\n") {
			if line != "" {
				first = append(first, strings.Fields(line)[0]+" "+strings.Fields(line)[1])
			}
		}
	}
	known := []string{"docker build", "docker push", "scripts/image wssgate.tar", "ctr --namespace", "kubectl --namespace", "curl --http1.1"}
	if !slices.Equal(first, known) {
		t.Errorf("%q", first)
	}
	// And the scripts and files that it names exist.
	for _, link := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(read(t, page), -1) {
		if _, err := os.Stat(filepath.Join(root, "docs", link[1])); err != nil {
			t.Error(err)
		}
	}
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
