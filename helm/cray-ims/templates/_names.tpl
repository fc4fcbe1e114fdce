{{- define "cray-ims.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cray-ims.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "cray-ims.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Labels that never change: a Deployment keeps its selector. Takes a list of the context and the component. */}}
{{- define "cray-ims.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: {{ default $context.Chart.Name $context.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ $context.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "cray-ims.labels" -}}
{{- $context := index . 0 -}}
{{ include "cray-ims.selector" . }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{/* Takes a list of the context and the values of an image. */}}
{{- define "cray-ims.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (index . 0).Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "cray-ims.serverUrl" -}}
{{- $service := printf "http://%s.%s.svc.cluster.local:%d" (include "cray-ims.fullname" .) .Release.Namespace (int64 .Values.service.reportPort) -}}
{{- default $service .Values.jobs.serverUrl -}}
{{- end -}}

{{/* What the container of a server or a migration may do: nothing. */}}
{{- define "cray-ims.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The user is that of the image. */}}
{{- define "cray-ims.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "cray-ims.databaseUrl" -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.secret.name | quote }}
      key: {{ .Values.database.secret.key | quote }}
{{- end -}}
