{{- define "wssgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "wssgate.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "wssgate.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "wssgate.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Names of cluster-scoped objects carry the namespace: two releases may have one name. */}}
{{- define "wssgate.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "wssgate.fullname" .) }}
{{- end }}

{{- define "wssgate.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "wssgate.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "wssgate.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "wssgate.selector" -}}
app.kubernetes.io/name: {{ include "wssgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "wssgate.labels" -}}
{{ include "wssgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Seconds of a duration such as 1m30s, rounded up. */}}
{{- define "wssgate.seconds" -}}
{{- $unit := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 }}
{{- $total := 0 }}
{{- range regexFindAll "[0-9]+(h|ms|m|s)" . -1 }}
{{- $number := regexFind "^[0-9]+" . }}
{{- $total = add $total (mul (int64 $number) (get $unit (trimPrefix $number .))) }}
{{- end }}
{{- div (add $total 999) 1000 }}
{{- end }}

{{/* How long a Pod may take to stop. */}}
{{- define "wssgate.grace" -}}
{{- add 10 (include "wssgate.seconds" .Values.drain.acceptGrace | int64) (include "wssgate.seconds" .Values.drain.window | int64) (include "wssgate.seconds" .Values.drain.deadline | int64) }}
{{- end }}

{{/* How many Pods there are at the most. */}}
{{- define "wssgate.replicas" -}}
{{- if .Values.autoscaling.enabled }}{{ int64 .Values.autoscaling.maxReplicas }}{{ else }}{{ max 1 (int64 .Values.replicas) }}{{ end }}
{{- end }}

{{/* Whether the Service keeps the client's address. */}}
{{- define "wssgate.keepsAddress" -}}
{{- if and (ne .Values.service.type "ClusterIP") (eq .Values.service.externalTrafficPolicy "Local") }}true{{ end }}
{{- end }}

{{/* defaults of the settings: the user's over perAddress. */}}
{{- define "wssgate.defaults" -}}
{{- $built := dict }}
{{- if and (include "wssgate.keepsAddress" .) (gt (int64 .Values.settings.perAddress) 0) }}
{{- $built = dict "connection" (dict "limits" (dict "perAddress" (int64 .Values.settings.perAddress))) }}
{{- end }}
{{- mergeOverwrite $built (deepCopy .Values.settings.defaults) | toYaml }}
{{- end }}

{{/* Whether ceilings go by labels of namespaces, which must be read then. */}}
{{- define "wssgate.readsNamespaces" -}}
{{- range .Values.settings.ceilings.namespaces }}{{ if .matchLabels }}true{{ end }}{{ end }}
{{- end }}

{{/* Whether a namespace is watched. */}}
{{- define "wssgate.watches" -}}
{{- if or (empty .root.Values.watchNamespaces) (has .namespace .root.Values.watchNamespaces) }}true{{ end }}
{{- end }}
