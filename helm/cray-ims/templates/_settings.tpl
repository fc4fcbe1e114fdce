{{/*
The settings of the server as YAML: what the chart knows, then what the site says. Every value is text. Numbers arrive as floats, which print as
1.048576e+06 when they are large.
*/}}
{{- define "cray-ims.settings" -}}
{{- $settings := dict
  "PORT" "8080"
  "LISTEN_ADDRESS" "0.0.0.0"
  "STATE_DIR" "/var/lib/ims"
  "JOB_LAUNCHER" "kubernetes"
  "JOB_REPORT_PORT" "8081"
  "JOB_SERVER_URL" (include "cray-ims.serverUrl" .)
  "DEFAULT_IMS_JOB_NAMESPACE" .Values.jobs.namespace
  "JOB_WORKER_IMAGE" (include "cray-ims.image" (list . .Values.jobs.image))
  "JOB_IMAGE_PULL_POLICY" .Values.jobs.image.pullPolicy
  "JOB_S3_SECRET" .Values.jobs.s3Secret
  "JOB_SIGNING_KEYS_SECRET" .Values.jobs.signingKeysSecret
  "JOB_SIGNING_KEYS_NAMESPACE" .Release.Namespace
  "JOB_MOUNT_SERVICE_ACCOUNT" .Values.jobs.mountServiceAccount.name
  "JOB_POD_SETTINGS" (toJson .Values.jobs.pod)
-}}
{{- if .Values.jobs.builderImage.repository }}{{ $_ := set $settings "JOB_BUILDER_IMAGE" (include "cray-ims.image" (list . .Values.jobs.builderImage)) }}{{ end -}}
{{- with .Values.jobs.storageClass }}{{ $_ := set $settings "JOB_STORAGE_CLASS" . }}{{ end -}}
{{- with .Values.s3.endpoint }}{{ $_ := set $settings "S3_ENDPOINT" . }}{{ end -}}
{{- if not (kindIs "invalid" .Values.s3.sslValidate) }}{{ $_ := set $settings "S3_SSL_VALIDATE" (toString .Values.s3.sslValidate) }}{{ end -}}
{{- if .Values.remoteBuildNodes.secret }}{{ $_ := set $settings "REMOTE_BUILD_NODE_KEY" "/etc/ims/remote-build-nodes/key" }}{{ end -}}
{{- range $name, $value := .Values.settings -}}
{{- if kindIs "float64" $value -}}
{{- $_ := set $settings $name (printf "%d" (int64 $value)) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $settings $name (toString $value) -}}
{{- end -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}
