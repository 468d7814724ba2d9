{{/* What values.schema.json cannot say: values that contradict each other. */}}
{{- define "wssgate.checks" -}}
{{- $values := .Values }}
{{- if and (eq $values.secrets.mode "Named") (empty $values.secrets.names) (empty $values.settings.defaultCertificate) }}
{{- fail "secrets.mode is Named but secrets.names is empty: no certificate could be read. List the Secrets as {namespace, name}, or set secrets.mode: All." }}
{{- end }}
{{- if and (eq $values.secrets.mode "All") $values.secrets.names }}
{{- fail "secrets.names has no effect with secrets.mode: All, which reads every Secret of the watched namespaces. Set secrets.mode: Named, or remove secrets.names." }}
{{- end }}
{{- range $values.secrets.names }}
{{- if not (include "wssgate.watches" (dict "root" $ "namespace" .namespace)) }}
{{- fail (printf "secrets.names lists %s/%s, but watchNamespaces does not list %s: no route there is served. Add the namespace, or remove the Secret." .namespace .name .namespace) }}
{{- end }}
{{- end }}
{{- with $values.settings.defaultCertificate }}
{{- if not (include "wssgate.watches" (dict "root" $ "namespace" .namespace)) }}
{{- fail (printf "settings.defaultCertificate lies in %s, but watchNamespaces does not list that namespace: the Secret could not be read. Add the namespace, or move the Secret." .namespace) }}
{{- end }}
{{- end }}
{{- if and $values.watchNamespaces $values.ingressClass.default }}
{{- fail "ingressClass.default cannot be used with watchNamespaces: without a ClusterRole the gateway cannot read IngressClasses, and so would not know that it is the default. Let routes name the class, or watch all namespaces." }}
{{- end }}
{{- if and $values.watchNamespaces (include "wssgate.readsNamespaces" .) }}
{{- fail "settings.ceilings.namespaces has matchLabels, which cannot be used with watchNamespaces: without a ClusterRole the gateway cannot read the labels of namespaces. List names instead, or watch all namespaces." }}
{{- end }}
{{- if and (not $values.serviceAccount.create) (empty $values.serviceAccount.name) }}
{{- fail "serviceAccount.create is false but serviceAccount.name is empty: name the ServiceAccount that the gateway runs as." }}
{{- end }}
{{- if and $values.autoscaling.enabled (gt (int64 $values.autoscaling.minReplicas) (int64 $values.autoscaling.maxReplicas)) }}
{{- fail (printf "autoscaling.minReplicas (%d) is more than autoscaling.maxReplicas (%d)." (int64 $values.autoscaling.minReplicas) (int64 $values.autoscaling.maxReplicas)) }}
{{- end }}
{{- if and (ne $values.service.type "LoadBalancer") (or $values.service.loadBalancerClass $values.service.loadBalancerSourceRanges) }}
{{- fail (printf "service.loadBalancerClass and service.loadBalancerSourceRanges need service.type: LoadBalancer, and it is %s. Without a load balancer the ranges would protect nothing; use handshake.networks of the routes." $values.service.type) }}
{{- end }}
{{- if and (eq $values.service.type "ClusterIP") (or (gt (int64 $values.service.wssNodePort) 0) (gt (int64 $values.service.httpNodePort) 0)) }}
{{- fail "service.wssNodePort and service.httpNodePort need service.type: NodePort or LoadBalancer, and it is ClusterIP." }}
{{- end }}
{{- if and (gt (int64 $values.service.httpPort) 0) (eq (int64 $values.service.httpPort) (int64 $values.service.wssPort)) }}
{{- fail "service.httpPort and service.wssPort are the same port; give them two, or set service.httpPort: 0." }}
{{- end }}
{{- if and $values.metrics.serviceMonitor.enabled (not $values.metrics.service) }}
{{- fail "metrics.serviceMonitor.enabled needs metrics.service: true, by which Prometheus finds the Pods." }}
{{- end }}
{{- if gt (include "wssgate.grace" . | int64) 3600 }}
{{- fail (printf "drain.acceptGrace, drain.window and drain.deadline make a Pod take %s s to stop, more than the hour that is sensible." (include "wssgate.grace" .)) }}
{{- end }}
{{- if and $values.tickets.used (gt (include "wssgate.replicas" . | int64) 1) (empty $values.sharedStore.url) }}
{{- fail (printf "tickets.used is true with up to %s Pods and no sharedStore.url: a ticket could be redeemed only at the Pod that issued it. Name a Redis or Valkey in sharedStore.url, or set replicas: 1." (include "wssgate.replicas" .)) }}
{{- end }}
{{- if and (empty $values.sharedStore.url) (or $values.sharedStore.passwordSecret $values.sharedStore.caSecret) }}
{{- fail "sharedStore.passwordSecret and sharedStore.caSecret need sharedStore.url, which is empty." }}
{{- end }}
{{- if and $values.sharedStore.caSecret (not (hasPrefix "rediss://" $values.sharedStore.url)) }}
{{- fail "sharedStore.caSecret needs TLS: let sharedStore.url begin with rediss://." }}
{{- end }}
{{- range $values.extraEnv }}
{{- if has .name (list "POD_NAME" "POD_NAMESPACE" "POD_IP" "POD_IPS" "WSSGATE_LOG") }}
{{- fail (printf "extraEnv sets %s, which the chart sets itself; WSSGATE_LOG is logLevel." .name) }}
{{- end }}
{{- if and (eq .name "SSL_CERT_FILE") $values.trustedAuthorities.configMap }}
{{- fail "extraEnv sets SSL_CERT_FILE, and so does trustedAuthorities.configMap: remove one of the two." }}
{{- end }}
{{- end }}
{{- end }}
