{{- define "cartsync.name" -}}
{{- if contains "cartsync" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-cartsync" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "cartsync.labels" -}}
app.kubernetes.io/name: cartsync
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* What selects the pods of a component: (list . "worker"). */}}
{{- define "cartsync.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: cartsync
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "cartsync.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "cartsync.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "cartsync.name" .) }}
{{- end }}

{{/* The pod of a component: (dict "root" . "component" "worker" "values" .Values.worker "args" (list …) "ports" (list …)
     "secret" "name" "configMap" "name"); and where they differ: "port" of the probes, "startup", "mounts", "volumes". */}}
{{- define "cartsync.pod" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "cartsync.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  annotations:
    # A changed configuration rolls the pods.
    checksum/config: {{ .config | sha256sum }}
    {{- with .values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "cartsync.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .grace }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "cartsync.selector" (list $root .component) | nindent 10 }}
  {{- with .values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "cartsync.image" $root | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ toJson .args }}
      env:
        - {name: CARTSYNC_CONFIG, value: /etc/cartsync/cartsync.toml}
        {{- if .secret }}
        - {name: CARTSYNC_SECRETS_DIR, value: /run/secrets/cartsync}
        {{- end }}
        {{- with .values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        {{- toYaml .ports | nindent 8 }}
      startupProbe:
        httpGet: {path: {{ .startup | default "/startupz" }}, port: {{ .port | default "private" }}}
        periodSeconds: 2
        failureThreshold: 150
      livenessProbe:
        httpGet: {path: /livez, port: {{ .port | default "private" }}}
        periodSeconds: 10
        timeoutSeconds: 5
        # It ends by itself after being stuck for 60 s; this is for what cannot even do that.
        failureThreshold: 9
      readinessProbe:
        httpGet: {path: /readyz, port: {{ .port | default "private" }}}
        periodSeconds: 5
        timeoutSeconds: 5
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: config, mountPath: /etc/cartsync, readOnly: true}
        {{- if .secret }}
        - {name: secrets, mountPath: /run/secrets/cartsync, readOnly: true}
        {{- end }}
        {{- with .mounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ .configMap }}}
    {{- if .secret }}
    - name: secrets
      secret: {secretName: {{ .secret }}, defaultMode: 0440}
    {{- end }}
    {{- with .volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
