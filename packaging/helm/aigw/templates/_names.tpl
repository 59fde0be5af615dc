{{- define "aigw.name" -}}
{{- if contains "aigw" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-aigw" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "aigw.selector" -}}
app.kubernetes.io/name: aigw
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "aigw.labels" -}}
{{ include "aigw.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
