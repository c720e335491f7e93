{{/* Name of every object: the release's name, with a suffix where one kind has several. */}}
{{- define "mcp.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "mcp.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mcp.labels" -}}
{{ include "mcp.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "mcp.image" -}}
{{- if .image.digest }}{{ .image.repository }}@{{ .image.digest }}{{ else }}{{ .image.repository }}:{{ .image.tag | default .version }}{{ end }}
{{- end }}

{{/* The configuration file: the settings, with what follows from other values. */}}
{{- define "mcp.settings" -}}
{{- $settings := deepCopy .Values.settings }}
{{- $origin := $settings.public_url | trimSuffix "/" }}
{{- $derived := dict "identity" (dict "jwt" (dict "issuer" $origin "audience" (printf "%s/mcp" $origin))) }}
{{- if .Values.tls.existingSecret }}
{{- $files := dict "cert" "/etc/mcp_server/tls/tls.crt" "key" "/etc/mcp_server/tls/tls.key" "ca" "/etc/mcp_server/tls/ca.crt" }}
{{- $_ := set $derived "listen" (dict "tls" $files "allowed_peers" .Values.tls.allowedPeers) }}
{{- end }}
{{- toYaml (merge $settings $derived) }}
{{- end }}

{{/* "true" where the settings name the cluster of the pods. */}}
{{- define "mcp.inCluster" -}}
{{- $kubernetes := (.Values.settings.tools | default dict).kubernetes | default dict }}
{{- range $kubernetes.clusters | default dict }}{{ if .in_cluster }}true{{ end }}{{ end }}
{{- end }}

{{- define "mcp.impersonates" -}}
{{- if ((.Values.settings.tools | default dict).kubernetes | default dict).impersonate }}true{{ end }}
{{- end }}

{{- define "mcp.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "mcp.name" .) }}
{{- end }}

{{- define "mcp.host" -}}
{{ (urlParse .Values.settings.public_url).host }}
{{- end }}

{{- define "mcp.credentials" -}}
{{ .Values.credentials.existingSecret | default (include "mcp.name" .) }}
{{- end }}

{{- define "mcp.policies" -}}
{{ .Values.policy.existingConfigMap | default (printf "%s-policies" (include "mcp.name" .)) }}
{{- end }}

{{- define "mcp.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "mcp.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end }}

{{/* Stops with what is missing and what to do. */}}
{{- define "mcp.validate" -}}
{{- $given := 0 }}
{{- range list .Values.policy.bundle .Values.policy.existingConfigMap .Values.policy.url }}{{ if . }}{{ $given = add1 $given }}{{ end }}{{ end }}
{{- if ne (int $given) 1 }}
{{- fail "policy: set exactly one of bundle, existingConfigMap and url; OPA denies every call without policies (docs/kubernetes-deployment.md)" }}
{{- end }}
{{- if and (not .Values.policy.existingConfigMap) (not (contains "BEGIN PUBLIC KEY" .Values.policy.verificationKey)) }}
{{- fail "policy.verificationKey: set the public key (PEM) of the key that signs the policies, such as with --set-file" }}
{{- end }}
{{- if .Values.credentials.existingSecret }}
{{- if .Values.credentials.values }}{{ fail "credentials: set existingSecret or values, not both" }}{{ end }}
{{- else }}
{{- range list "jwt_secret" "redis_password" "database_password" }}
{{- if not (get $.Values.credentials.values .) }}
{{- fail (printf "credentials: %s is missing; set credentials.existingSecret to a Secret with it, or credentials.values.%s" . .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.migrations.enabled (not .Values.migrations.existingSecret) (not .Values.migrations.credentials.database_owner_password) }}
{{- fail "migrations: database_owner_password is missing; set migrations.existingSecret to a Secret with it, migrations.credentials.database_owner_password, or migrations.enabled: false" }}
{{- end }}
{{- if and .Values.tls.existingSecret (not .Values.tls.allowedPeers) }}
{{- fail "tls.allowedPeers: name the DNS names of the client certificates that may connect, such as the ingress controller's" }}
{{- end }}
{{- if and .Values.gateway.enabled (not .Values.gateway.parentRefs) }}
{{- fail "gateway.parentRefs: name the gateway that the HTTPRoute belongs to" }}
{{- end }}
{{- end }}
