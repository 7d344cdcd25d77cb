{{- define "exporter.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- /* Labels that select the pods of one process. Arguments: root, component. */ -}}
{{- define "exporter.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "exporter.labels" -}}
{{ include "exporter.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "exporter.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "exporter.secret" -}}
{{- default (printf "%s-%s" (include "exporter.name" .root) .component) .values.existingSecret -}}
{{- end -}}

{{- define "exporter.datasets" -}}
{{- default (printf "%s-datasets" (include "exporter.name" .)) .Values.existingDatasetsConfigMap -}}
{{- end -}}

{{- /* The slots of one worker, which the length of the queue is divided by. */ -}}
{{- define "exporter.workerSlots" -}}
{{- get (merge (dict) .Values.worker.env .Values.settings) "EXPORTER_WORKER_SLOTS" -}}
{{- end -}}

{{- define "exporter.userSlots" -}}
{{- get (merge (dict) .Values.worker.env .Values.settings) "EXPORTER_USER_SLOTS" | default "2" | int -}}
{{- end -}}

{{- /* Seconds that a worker needs to stop: its exports, or one delivery, and 23 s for the rest; 7 s more to be sure. */ -}}
{{- define "exporter.stopSeconds" -}}
{{- $settings := merge (dict) .Values.worker.env .Values.settings -}}
{{- $drain := get $settings "EXPORTER_DRAIN_SECONDS" | default "30" | float64 -}}
{{- $delivery := get $settings "EXPORTER_DELIVERY_TIMEOUT_SECONDS" | default "30" | float64 -}}
{{- add (maxf $drain $delivery | ceil | int) 30 -}}
{{- end -}}

{{- /* Annotations of a pod. A changed setting restarts what reads it. */ -}}
{{- define "exporter.podAnnotations" -}}
checksum/settings: {{ toJson .root.Values.settings | sha256sum }}
{{- if and .metrics (not .root.Values.podMonitor.enabled) }}
prometheus.io/scrape: "true"
prometheus.io/port: "9100"
{{- end }}
{{- with .values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* What every pod has: no rights that no process needs. Arguments: root, values. */ -}}
{{- define "exporter.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false # a Service with the name exporter-metrics would set EXPORTER_METRICS_PORT
{{- with .values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with .root.Values.podSecurityContext }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  seccompProfile: { type: RuntimeDefault }
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "exporter.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "exporter.selector" . | nindent 8 }}
{{- end -}}

{{- /* What every container has. Arguments: root, values. */ -}}
{{- define "exporter.container" -}}
image: {{ include "exporter.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
resources:
  {{- toYaml .values.resources | nindent 2 }}
{{- end -}}

{{- define "exporter.env" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{- define "exporter.envFrom" -}}
- configMapRef: { name: {{ include "exporter.name" .root }}-settings }
- secretRef: { name: {{ include "exporter.secret" . }} }
{{- end -}}

{{- /* Mounts and volumes of a worker and an API. */ -}}
{{- define "exporter.mounts" -}}
- { name: tmp, mountPath: /tmp }
- { name: datasets, mountPath: /etc/streaming-exporter/datasets, readOnly: true }
{{- with .values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "exporter.volumes" -}}
- name: datasets
  configMap: { name: {{ include "exporter.datasets" .root }} }
- name: tmp
  emptyDir: { sizeLimit: {{ .values.tmpSize }} }
{{- with .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
