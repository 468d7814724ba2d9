{{/* What the gateway does with objects of a namespace that it watches: no more than this. */}}
{{- define "wssgate.rules" -}}
- apiGroups: [wssgate.io]
  resources: [securewebsocketroutes]
  verbs: [get, list, watch]
- apiGroups: [wssgate.io]
  resources: [securewebsocketroutes/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch]
{{- if eq .Values.secrets.mode "All" }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch]
{{- end }}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
# ACME HTTP-01: cert-manager's solver says by an Ingress which challenge it answers.
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources: [referencegrants]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- if .Values.certManager.enabled }}
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, list, watch, create, patch]
{{- end }}
{{- end }}

{{- define "wssgate.subject" -}}
- kind: ServiceAccount
  name: {{ include "wssgate.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* A RoleBinding to the Role of the same name. */}}
{{- define "wssgate.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "wssgate.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name }}
subjects:
{{ include "wssgate.subject" .root }}
{{- end }}
