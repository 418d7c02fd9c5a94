{{/* Name of all objects. */}}
{{- define "forebay.name" -}}
{{ printf "%s-controller" .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* The image, by digest if there is one. */}}
{{- define "forebay.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}
{{- else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}
