package install

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

func TestHelmFindsNoFaultWithTheChart(t *testing.T) {
	for _, values := range valuesFiles(t) {
		run(t, "helm", "lint", "--strict", "charts/wssgate", "--values", "charts/wssgate/ci/"+values+"-values.yaml")
	}
}

func TestEveryRenderingIsTheGoldenOne(t *testing.T) {
	for _, values := range valuesFiles(t) {
		golden(t, "tests/install/golden/"+values+".yaml", render(t, values, "--set", "crds.enabled=false"))
	}
	files, err := os.ReadDir("golden")
	if err != nil || len(files) != len(valuesFiles(t)) {
		t.Errorf("golden files that no values file makes: %v %v", files, err)
	}
}

func TestTheManifestsAreRenderedFromTheChart(t *testing.T) {
	out := t.TempDir()
	script(t, "scripts/manifests", out)
	for _, file := range []string{
		"base/crd.yaml", "default/wssgate.yaml", "namespaced/wssgate.yaml", "high-availability/wssgate.yaml",
	} {
		rendered, err := os.ReadFile(filepath.Join(out, file))
		if err != nil {
			t.Fatal(err)
		}
		if string(rendered) != read(t, "manifests/"+file) {
			t.Errorf("manifests/%s is stale; run scripts/manifests and commit it", file)
		}
	}
}

func TestTheDefinitionComesAsTheBinaryPrintsIt(t *testing.T) {
	printed := documents(t, read(t, "crds/wssgate.io_securewebsocketroutes.yaml"))[0]
	for keep, policy := range map[string]any{"true": "keep", "false": nil} {
		rendered := of(documents(t, render(t, "default", "--set", "crds.keep="+keep)), "CustomResourceDefinition")
		if len(rendered) != 1 {
			t.Fatalf("%d definitions", len(rendered))
		}
		annotations := at(rendered[0], "metadata", "annotations").(object)
		if found := annotations["helm.sh/resource-policy"]; found != policy {
			t.Errorf("keep %s: %v", keep, found)
		}
		delete(annotations, "helm.sh/resource-policy")
		if fmt.Sprint(rendered[0]) != fmt.Sprint(printed) {
			t.Error("the definition is not the one that the binary prints")
		}
	}
	if of(documents(t, render(t, "minimal")), "CustomResourceDefinition") != nil {
		t.Error("crds.enabled: false renders a definition")
	}
}

func TestValuesThatContradictEachOtherAreRefusedWithASentence(t *testing.T) {
	for flags, sentence := range map[string]string{
		"secrets.mode=Named": "secrets.names is empty",
		"secrets.names[0].namespace=a,secrets.names[0].name=b":                                                                        "no effect with secrets.mode: All",
		"watchNamespaces={shop},secrets.mode=Named,secrets.names[0].namespace=a,secrets.names[0].name=b":                              "watchNamespaces does not list a",
		"watchNamespaces={shop},settings.defaultCertificate.namespace=a,settings.defaultCertificate.name=b":                           "lies in a, but watchNamespaces",
		"watchNamespaces={shop},ingressClass.default=true":                                                                            "ingressClass.default cannot be used with watchNamespaces",
		"watchNamespaces={shop},settings.ceilings.namespaces[0].matchLabels.tier=free,settings.ceilings.namespaces[0].limits.total=1": "cannot read the labels of namespaces",
		"serviceAccount.create=false": "serviceAccount.name is empty",
		"autoscaling.enabled=true,autoscaling.minReplicas=5,autoscaling.maxReplicas=4": "minReplicas (5) is more than autoscaling.maxReplicas (4)",
		"service.type=NodePort,service.loadBalancerSourceRanges={10.0.0.0/8}":          "need service.type: LoadBalancer",
		"service.type=ClusterIP,service.wssNodePort=30000":                             "need service.type: NodePort",
		"service.wssPort=80": "are the same port",
		"metrics.service=false,metrics.serviceMonitor.enabled=true": "needs metrics.service: true",
		"drain.window=2h": "more than the hour",
		"extraEnv[0].name=POD_IP,extraEnv[0].value=x":                                          "extraEnv sets POD_IP",
		"tickets.used=true":                                                                    "with up to 2 Pods and no sharedStore.url",
		"tickets.used=true,replicas=1,autoscaling.enabled=true":                                "with up to 10 Pods and no sharedStore.url",
		"sharedStore.passwordSecret.name=a,sharedStore.passwordSecret.key=b":                   "need sharedStore.url",
		"sharedStore.url=redis://store,sharedStore.caSecret.name=a,sharedStore.caSecret.key=b": "begin with rediss://",
		"trustedAuthorities.configMap=a,extraEnv[0].name=SSL_CERT_FILE,extraEnv[0].value=x":    "extraEnv sets SSL_CERT_FILE",
	} {
		stdout, stderr, err := try(t, "", "helm", "template", "wssgate", "charts/wssgate", "--set", flags)
		if err == nil || !strings.Contains(stderr, sentence) {
			t.Errorf("%s: want %q\n%v %s%s", flags, sentence, err, stderr, stdout[:min(len(stdout), 200)])
		}
	}
}

func TestValuesThatTheSchemaDoesNotKnowAreRefused(t *testing.T) {
	for flags, names := range map[string]string{
		"replica=3":                                                 "'replica'",
		"service.externaltrafficpolicy=Local":                       "'externaltrafficpolicy'",
		"settings.trustEveryone=true":                               "'trustEveryone'",
		"settings.defaults.handshake.orgins.mode=x":                 "'orgins'",
		"settings.defaults.handshake.authentication.mode=Anonymous": "'authentication'",
		"settings.defaults.connection.limits.perSubjects=1":         "'perSubjects'",
		"settings.trustedProxies.forwardedFor.hops=0":               "/settings/trustedProxies/forwardedFor",
		"settings.memoryBudget=much":                                "/settings/memoryBudget",
		"drain.window=soon":                                         "/drain/window",
		"service.type=ExternalName":                                 "/service/type",
		"watchNamespaces={Shop}":                                    "/watchNamespaces/0",
		"bindAddress=localhost":                                     "/bindAddress",
		"image.digest=sha256:1":                                     "/image/digest",
		"sharedStore.url=redis://user:hunter2@store":                "/sharedStore/url",
		"sharedStore.url=store:6379":                                "/sharedStore/url",
		"sharedStore.password=hunter2":                              "'password'",
		"sharedStore.keyPrefix=":                                    "/sharedStore/keyPrefix",
	} {
		_, stderr, err := try(t, "", "helm", "template", "wssgate", "charts/wssgate", "--set", flags)
		if err == nil || !strings.Contains(stderr, names) {
			t.Errorf("%s: want %s named\n%v %s", flags, names, err, stderr)
		}
	}
}

func TestTheGraceFollowsTheDrain(t *testing.T) {
	for drain, grace := range map[string]float64{
		"drain.window=20s":                       45,
		"drain.window=1m30s":                     115,
		"drain.window=1ms":                       26,
		"drain.acceptGrace=0s,drain.deadline=0s": 30,
	} {
		deployment := of(documents(t, render(t, "default", "--set", drain)), "Deployment")[0]
		if found := at(deployment, "spec", "template", "spec", "terminationGracePeriodSeconds"); found != grace {
			t.Errorf("%s: %v", drain, found)
		}
	}
	autoscaler := of(documents(t, render(t, "high-availability")), "HorizontalPodAutoscaler")[0]
	down := at(autoscaler, "spec", "behavior", "scaleDown", "policies", 0)
	if at(down, "value") != 1.0 || at(down, "periodSeconds") != 160.0 {
		t.Errorf("a Pod may go before the last has drained: %v", down)
	}
}

// What the gateway is told of its replicas is what the chart makes at the most, and it is told where they share a store.
func TestTheGatewayKnowsHowManyPodsThereAreAndWhatTheyShare(t *testing.T) {
	settings := func(flags string) string {
		config := of(documents(t, render(t, "default", "--set", flags)), "ConfigMap")[0]
		return fmt.Sprint(at(config, "data", "gateway.yaml"))
	}
	for flags, replicas := range map[string]string{
		"replicas=1,tickets.used=true": "1", "replicas=5": "5", "autoscaling.enabled=true,autoscaling.maxReplicas=7": "7",
		"tickets.used=true,sharedStore.url=redis://store": "2",
	} {
		if text := settings(flags); !strings.Contains(text, "\nreplicas: "+replicas+"\n") {
			t.Errorf("%s: not %s replicas\n%s", flags, replicas, text)
		}
	}
	if text := settings("replicas=2"); strings.Contains(text, "sharedStore") {
		t.Errorf("a store that nobody named\n%s", text)
	}
	all := documents(t, render(t, "everything"))
	pod := at(of(all, "Deployment")[0], "spec", "template", "spec")
	if text := fmt.Sprint(at(of(all, "ConfigMap")[0], "data", "gateway.yaml")); !strings.Contains(text, "passwordFile: /run/wssgate/store/password") ||
		!strings.Contains(text, "caFile: /run/wssgate/store/ca.crt") {
		t.Errorf("%s", text)
	}
	if text := fmt.Sprint(at(pod, "volumes")); !strings.Contains(text, "store-ca") || !strings.Contains(text, "path:password") {
		t.Errorf("%s", text)
	}
	if text := fmt.Sprint(at(pod, "containers", 0, "volumeMounts")); !strings.Contains(text, "/run/wssgate/store") {
		t.Errorf("%s", text)
	}
}

// A restart for every setting would close every connection: the template must not know what is reread.
func TestSettingsThatAreRereadRestartNothing(t *testing.T) {
	template := func(flags string) string {
		deployment := of(documents(t, render(t, "default", "--set", flags)), "Deployment")[0]
		return fmt.Sprint(at(deployment, "spec", "template"))
	}
	before := template("replicas=2")
	for _, flags := range []string{
		"settings.perAddress=7", "settings.hostnameSuffixes.shop={shop.test}", "settings.ceilings.default.total=5",
		"settings.memoryBudget=300Mi", "settings.trustedProxies.proxyProtocol.networks={10.0.0.0/24}",
		"settings.defaults.connection.limits.total=5", "service.type=ClusterIP", "networkPolicy.enabled=false",
		"ingressClass.name=other", "watchNamespaces={shop}", "controllerName=example.com/own",
		"settings.defaultCertificate.name=a,settings.defaultCertificate.namespace=b", "publishAddresses={192.0.2.1}",
	} {
		if template(flags) != before {
			t.Errorf("%s changes the Pods", flags)
		}
	}
	for _, flags := range []string{
		"bindAddress=0.0.0.0", "workers=3", "logFormat=text", "sharedStore.url=redis://store",
		"trustedAuthorities.configMap=issuers",
	} {
		if template(flags) == before {
			t.Errorf("%s needs a restart, and makes none", flags)
		}
	}
}

// rights lists every right that a rendering gives, one line each.
func rights(all []object) string {
	var lines []string
	for _, kind := range []string{"ClusterRole", "Role"} {
		for _, role := range of(all, kind) {
			rules, _ := role["rules"].([]any)
			for _, rule := range rules {
				for _, group := range texts(at(rule, "apiGroups")) {
					for _, resource := range texts(at(rule, "resources")) {
						line := fmt.Sprintf("%s: %s: %s", named(role), strings.Trim(group+"/"+resource, "/"), strings.Join(texts(at(rule, "verbs")), " "))
						if names := texts(at(rule, "resourceNames")); names != nil {
							line += " only " + strings.Join(names, " ")
						}
						lines = append(lines, line)
					}
				}
			}
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n"
}

func texts(value any) []string {
	var all []string
	items, _ := value.([]any)
	for _, item := range items {
		all = append(all, fmt.Sprint(item))
	}
	return all
}

func TestRightsAreTheGoldenOnesAndNoMore(t *testing.T) {
	for _, values := range valuesFiles(t) {
		all := documents(t, render(t, values, "--set", "crds.enabled=false"))
		list := rights(all)
		golden(t, "tests/install/rights/"+values+".txt", list)
		for _, line := range strings.Split(strings.TrimSpace(list), "\n") {
			if strings.Contains(line, "-edit: ") && strings.HasPrefix(line, "ClusterRole ") {
				continue // For people, by aggregation; bound to nobody here.
			}
			for _, bad := range []string{
				"*", "escalate", "bind ", "impersonate", "deletecollection", " pods", "nodes", "rolebindings", "tokenreviews",
				"secrets: create", "secrets: update", "secrets: patch", "delete",
			} {
				if strings.Contains(line, bad) {
					t.Errorf("%s: %q in %s", values, bad, line)
				}
			}
		}
		// Who a role is given to: the gateway alone.
		for _, kind := range []string{"ClusterRoleBinding", "RoleBinding"} {
			for _, binding := range of(all, kind) {
				subjects, _ := binding["subjects"].([]any)
				account := at(of(all, "Deployment")[0], "spec", "template", "spec", "serviceAccountName")
				if len(subjects) != 1 || at(subjects, 0, "kind") != "ServiceAccount" ||
					at(subjects, 0, "namespace") != "wssgate" || at(subjects, 0, "name") != account {
					t.Errorf("%s: %v", named(binding), subjects)
				}
			}
		}
	}
}

func TestAListOfNamespacesNeedsNoRightOverTheCluster(t *testing.T) {
	for _, values := range []string{"namespaced", "two-namespaces"} {
		all := documents(t, render(t, values, "--set", "crds.enabled=false"))
		watched := texts(at(documents(t, read(t, "charts/wssgate/ci/"+values+"-values.yaml"))[0], "watchNamespaces"))
		for _, o := range all {
			namespace, _ := at(o, "metadata", "namespace").(string)
			if namespace == "" {
				t.Errorf("%s: %s belongs to the cluster", values, named(o))
			}
			if namespace != "wssgate" && !slices.Contains(watched, namespace) {
				t.Errorf("%s: %s lies in a namespace that is not watched", values, named(o))
			}
		}
	}
}

func TestSecretsByNameAreTheOnlyOnesThatCanBeRead(t *testing.T) {
	for _, values := range []string{"named-secrets", "two-namespaces"} {
		for _, line := range strings.Split(rights(documents(t, render(t, values))), "\n") {
			if strings.Contains(line, ": secrets: ") && !strings.Contains(line, " only ") {
				t.Errorf("%s: %s", values, line)
			}
		}
	}
}

func TestTheAdminPortIsOpenToThoseWhoAreNamedOnly(t *testing.T) {
	for _, values := range valuesFiles(t) {
		all := documents(t, render(t, values))
		for _, policy := range of(all, "NetworkPolicy") {
			rules, _ := at(policy, "spec", "ingress").([]any)
			for _, rule := range rules {
				for _, port := range at(rule, "ports").([]any) {
					if at(port, "port") == "admin" && at(rule, "from", 0) == nil {
						t.Errorf("%s: everyone may reach the admin port", values)
					}
				}
			}
		}
		// Never by the Service that faces the outside.
		for _, service := range of(all, "Service") {
			for _, port := range at(service, "spec", "ports").([]any) {
				if at(port, "targetPort") == "admin" && at(service, "spec", "clusterIP") != "None" {
					t.Errorf("%s: %s leads to the admin port", values, named(service))
				}
			}
		}
	}
	closed := of(documents(t, render(t, "default", "--set", "networkPolicy.adminFrom=null")), "NetworkPolicy")[0]
	if strings.Contains(fmt.Sprint(closed), "admin") {
		t.Error("an empty adminFrom lets everyone in")
	}
}

// Notes are for people: they have to name what was installed.
// Prometheus finds Services by labels, their ports by name, and by their selectors the Pods.
func TestTheServiceMonitorFindsEveryPodOnce(t *testing.T) {
	all := documents(t, render(t, "everything"))
	monitor := of(all, "ServiceMonitor")[0]
	matches := func(selector, labels any) bool {
		for name, value := range selector.(object) {
			if at(labels, name) != value {
				return false
			}
		}
		return true
	}
	var found []object
	for _, service := range of(all, "Service") {
		if matches(at(monitor, "spec", "selector", "matchLabels"), at(service, "metadata", "labels")) {
			found = append(found, service)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d Services", len(found))
	}
	service, pod := found[0], at(of(all, "Deployment")[0], "spec", "template")
	if !matches(at(service, "spec", "selector"), at(pod, "metadata", "labels")) || at(service, "spec", "clusterIP") != "None" {
		t.Errorf("%v does not lead to the Pods", service)
	}
	port := at(service, "spec", "ports", 0)
	if at(port, "name") != at(monitor, "spec", "endpoints", 0, "port") || at(monitor, "spec", "endpoints", 0, "path") != "/metrics" {
		t.Errorf("%v", port)
	}
	ports, _ := at(pod, "spec", "containers", 0, "ports").([]any)
	if !slices.ContainsFunc(ports, func(one any) bool { return at(one, "name") == at(port, "targetPort") }) {
		t.Errorf("the Pods have no port %v", at(port, "targetPort"))
	}
	// And what scales them is this Deployment, by a metric of these Pods.
	scaler := of(all, "HorizontalPodAutoscaler")[0]
	target := at(scaler, "spec", "scaleTargetRef")
	if at(target, "kind") != "Deployment" || at(target, "name") != at(of(all, "Deployment")[0], "metadata", "name") ||
		at(scaler, "spec", "metrics", 0, "type") != "Pods" || at(scaler, "spec", "metrics", 0, "pods", "metric", "name") != "wssgate_connections" {
		t.Errorf("%v", scaler)
	}
}

// That they name our metrics and their labels is tested in tests/chart.rs.
func TestPrometheusUnderstandsTheExpressionsOfAlerts(t *testing.T) {
	rules, _ := at(of(documents(t, render(t, "everything")), "PrometheusRule")[0], "spec", "groups", 0, "rules").([]any)
	if len(rules) < 5 {
		t.Errorf("%d alerts", len(rules))
	}
	for _, rule := range rules {
		expression := at(rule, "expr").(string)
		parsed, err := parser.ParseExpr(expression)
		if err != nil || parsed.Type() != parser.ValueTypeVector {
			t.Errorf("%s: %v\n%s", at(rule, "alert"), err, expression)
		}
		// It is an oracle only if it says no.
		if _, err := parser.ParseExpr(strings.Replace(expression, "{", "(", 1)); err == nil {
			t.Errorf("%s: anything is understood", at(rule, "alert"))
		}
	}
}

func TestTheNotesSayWhatToDoNextAndWhatIsWeak(t *testing.T) {
	notes := func(flags string) string {
		return run(t, "helm", "install", "edge", "charts/wssgate", "--namespace", "gate", "--dry-run=client", "--set", flags)
	}
	plain := notes("replicas=2")
	for _, part := range []string{"rollout status deployment/edge-wssgate", "-n gate get service edge-wssgate", "in all namespaces"} {
		if !strings.Contains(plain, part) {
			t.Errorf("no %q", part)
		}
	}
	for _, word := range []string{"WARNING", "NOTE: external", "NOTE: there is no NetworkPolicy"} {
		if strings.Contains(plain, word) {
			t.Errorf("%q without a reason", word)
		}
	}
	for flags, part := range map[string]string{
		"crds.keep=false": "deletes the CustomResourceDefinition", "networkPolicy.enabled=false": "no login",
		"service.externalTrafficPolicy=Cluster": "address of a node", "watchNamespaces={shop,apps}": "shop, apps",
	} {
		if !strings.Contains(notes(flags), part) {
			t.Errorf("%s: no %q", flags, part)
		}
	}
}
