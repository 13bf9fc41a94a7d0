{{/* Names, labels, and the one pod that all components share. A part is what the root, the component's name and its
values give: (dict "root" $ "name" "worker" "own" .Values.worker). */}}

{{- define "headrace.fullname" -}}
{{- if contains "headrace" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-headrace" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "headrace.part" -}}
{{ include "headrace.fullname" .root }}-{{ .name }}
{{- end }}

{{- define "headrace.labels" -}}
{{ include "headrace.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "headrace.selector" -}}
app.kubernetes.io/name: headrace
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "headrace.image" -}}
{{- $image := ternary .root.Values.cudaImage .root.Values.image .cuda -}}
{{ $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* A setting as given, or as the code has it: (list $ "worker" "drain_timeout"). */}}
{{- define "headrace.setting" -}}
{{- $root := index . 0 }}{{ $section := index . 1 }}{{ $field := index . 2 -}}
{{- $code := index ($root.Files.Get "files/headrace.json" | fromJson).defaults $section $field -}}
{{- $given := index $root.Values.settings $section | default dict -}}
{{- if hasKey $given $field }}{{ index $given $field }}{{ else }}{{ $code }}{{ end }}
{{- end }}

{{/* How long a component takes to end by its own rules (commands/worker.py, gateway.py, trainer.py, labeller.py), with
what is above it: the process's own exit. A gateway leaves its service first. */}}
{{- define "headrace.grace" -}}
{{- $stop := (.root.Files.Get "files/headrace.json" | fromJson).stops -}}
{{- $seconds := 30.0 -}}
{{- if eq .name "worker" }}{{ $seconds = mulf (include "headrace.setting" (list .root "worker" "drain_timeout") | float64) $stop.worker_drains }}
{{- else if eq .name "gateway" }}{{ $seconds = addf (include "headrace.setting" (list .root "gateway" "drain") | float64) $stop.gateway_seconds $stop.leaves_service_seconds }}
{{- else if hasKey $stop .name }}{{ $seconds = index $stop .name }}{{ end -}}
{{ ceil (addf $seconds 5) | int }}
{{- end }}

{{- define "headrace.kafkaSecret" -}}
{{- .own.kafkaSecret | default (ternary (include "headrace.kafkaUser" .) "" .root.Values.strimzi.users) }}
{{- end }}

{{- define "headrace.kafkaUser" -}}
{{- .own.kafkaUser | default (include "headrace.part" .) }}
{{- end }}

{{/* Settings that the chart gives, as variables: who logs in, where secrets lie, what listens. */}}
{{- define "headrace.env" -}}
{{- $kafka := .root.Values.kafka }}{{ $store := .root.Values.store -}}
{{- $trains := has .name (list "trainer" "training") -}}
- {name: HEADRACE_ADMIN__HOST, value: 0.0.0.0}
- {name: HEADRACE_ADMIN__PORT, value: "9464"}
- {name: TMPDIR, value: /tmp}
- {name: NUMBA_CACHE_DIR, value: /tmp/kernels}
{{- if $store.claim }}
- {name: HEADRACE_TRAINER__STORE, value: /store}
{{- else if $store.uri }}
- {name: HEADRACE_TRAINER__STORE, value: {{ $store.uri | quote }}}
{{- end }}
{{- with $store.endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- with $store.region }}
- {name: AWS_DEFAULT_REGION, value: {{ . | quote }}}
{{- end }}
{{- if ne .name "topics" }}
{{- with ternary $store.writeSecret $store.readSecret $trains }}
- {name: AWS_ACCESS_KEY_ID, valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_ACCESS_KEY_ID}}}
- {name: AWS_SECRET_ACCESS_KEY, valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_SECRET_ACCESS_KEY}}}
{{- end }}
{{- end }}
{{- if ne .name "training" }}
{{- if or $kafka.tls (ne $kafka.auth "none") }}
- {name: HEADRACE_KAFKA__SECURITY_PROTOCOL, value: {{ if has $kafka.auth (list "none" "tls") }}SSL{{ else }}SASL_SSL{{ end }}}
{{- if $kafka.caSecret.name }}
- {name: HEADRACE_KAFKA__SSL_CAFILE, value: /run/secrets/kafka-ca/ca.crt}
{{- end }}
{{- end }}
{{- if eq $kafka.auth "tls" }}
- {name: HEADRACE_KAFKA__SSL_CERTFILE, value: /run/secrets/kafka/user.crt}
- {name: HEADRACE_KAFKA__SSL_KEYFILE, value: /run/secrets/kafka/user.key}
{{- else if ne $kafka.auth "none" }}
- {name: HEADRACE_KAFKA__SASL_MECHANISM, value: {{ upper $kafka.auth }}}
- {name: HEADRACE_KAFKA__SASL_USERNAME, value: {{ include "headrace.kafkaUser" . }}}
- {name: HEADRACE_KAFKA__SASL_PASSWORD_FILE, value: /run/secrets/kafka/password}
{{- end }}
{{- end }}
{{- with .env }}
{{ . }}
{{- end }}
{{- with .own.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Secrets of the component alone, each key a file that this user alone reads. */}}
{{- define "headrace.mounts" -}}
- {name: settings, mountPath: /etc/headrace, readOnly: true}
- {name: scratch, mountPath: /tmp, subPath: own}
{{- if and .root.Values.store.claim (ne .name "topics") }}
- {name: store, mountPath: /store, readOnly: {{ not (has .name (list "trainer" "training")) }}}
{{- end }}
{{- if ne .name "training" }}
{{- if .root.Values.kafka.caSecret.name }}
- {name: kafka-ca, mountPath: /run/secrets/kafka-ca, readOnly: true}
{{- end }}
{{- if ne .root.Values.kafka.auth "none" }}
- {name: kafka, mountPath: /run/secrets/kafka, readOnly: true}
{{- end }}
{{- end }}
{{- range $name, $volume := .files }}
- {name: {{ $name }}, mountPath: /run/secrets/{{ $name }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "headrace.volumes" -}}
- name: settings
  configMap: {name: {{ include "headrace.fullname" .root }}-settings}
- name: scratch
  emptyDir: {sizeLimit: {{ .scratch | default "1Gi" }}}
{{- if and .root.Values.store.claim (ne .name "topics") }}
- name: store
  persistentVolumeClaim: {claimName: {{ .root.Values.store.claim }}, readOnly: {{ not (has .name (list "trainer" "training")) }}}
{{- end }}
{{- if ne .name "training" }}
{{- with .root.Values.kafka.caSecret }}{{ if .name }}
- name: kafka-ca
  secret: {secretName: {{ .name }}, defaultMode: 0440, items: [{key: {{ .key }}, path: ca.crt}]}
{{- end }}{{ end }}
{{- if ne .root.Values.kafka.auth "none" }}
{{- $secret := include "headrace.kafkaSecret" . | required (printf "kafka.auth is %s, so %s.kafkaSecret has to name the secret of its login (or set strimzi.users)" .root.Values.kafka.auth .name) }}
- name: kafka
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
    items:
      {{- if eq .root.Values.kafka.auth "tls" }}
      - {key: user.crt, path: user.crt}
      - {key: user.key, path: user.key}
      {{- else }}
      - {key: password, path: password}
      {{- end }}
{{- end }}
{{- end }}
{{- range $name, $volume := .files }}
- name: {{ $name }}
  {{- toYaml $volume | nindent 2 }}
{{- end }}
{{- end }}

{{/* The spec of a pod under the restricted standard. Beside the part it takes: args, cuda, and where there are any: ports,
env (a text), files (volumes below /run/secrets by name), probes, preStop, restart, subdomain, scratch. */}}
{{- define "headrace.pod" -}}
{{- $security := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
serviceAccountName: {{ include "headrace.part" . }}
automountServiceAccountToken: false
# A service named headrace-* would otherwise put variables that begin with HEADRACE_ into every pod.
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .restart }}
restartPolicy: {{ . }}
{{- end }}
{{- with .subdomain }}
subdomain: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ include "headrace.grace" . }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- if gt (int (.own.replicas | default 1)) 1 }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "headrace.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- with .own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
initContainers:
  # A fresh emptyDir may be written by everybody, and headrace refuses such a folder for its locks and compiled kernels.
  # So /tmp is a folder in it that is this user's alone, with the kernels that the image has compiled.
  - name: own-folder
    image: {{ include "headrace.image" . }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [sh, -c]
    args: ["install -d -m 0700 \"$SCRATCH/own\" && if [ -d \"$KERNELS\" ]; then cp -r \"$KERNELS/.\" \"$SCRATCH/own/kernels\"; fi"]
    env:
      - {name: SCRATCH, value: /scratch}
      - {name: KERNELS, value: /var/cache/headrace}
    securityContext:
      {{- toYaml $security | nindent 6 }}
    resources:
      requests: {cpu: 10m, memory: 16Mi}
      limits: {memory: 64Mi}
    volumeMounts:
      - {name: scratch, mountPath: /scratch}
containers:
  - name: {{ .name }}
    image: {{ include "headrace.image" . }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args:
      - --config
      - /etc/headrace/headrace.toml
      {{- range .args }}
      - {{ . | quote }}
      {{- end }}
    env:
      {{- include "headrace.env" . | nindent 6 }}
    securityContext:
      {{- toYaml $security | nindent 6 }}
    resources:
      {{- toYaml .own.resources | nindent 6 }}
    {{- if .probes }}
    ports:
      - {name: admin, containerPort: 9464}
      {{- range $name, $port := .ports }}
      - {name: {{ $name }}, containerPort: {{ $port }}}
      {{- end }}
    # The admin port shares the process's event loop: one that hangs answers no probe. /readyz is 503 while Kafka is away,
    # which must not restart anybody, so only /healthz does.
    startupProbe:
      httpGet: {path: /healthz, port: admin}
      periodSeconds: 2
      timeoutSeconds: 4
      failureThreshold: 90
    livenessProbe:
      httpGet: {path: /healthz, port: admin}
      periodSeconds: 10
      timeoutSeconds: 4
      failureThreshold: 6
    readinessProbe:
      httpGet: {path: /readyz, port: admin}
      periodSeconds: 5
      timeoutSeconds: 4
      failureThreshold: 2
    {{- end }}
    {{- with .preStop }}
    lifecycle:
      preStop: {sleep: {seconds: {{ . }}}}
    {{- end }}
    volumeMounts:
      {{- include "headrace.mounts" . | nindent 6 }}
volumes:
  {{- include "headrace.volumes" . | nindent 2 }}
{{- end }}

{{/* Metadata of a pod: a change of the settings begins a rolling update. */}}
{{- define "headrace.podMetadata" -}}
labels:
  {{- include "headrace.labels" . | nindent 2 }}
annotations:
  headrace/settings: {{ include "headrace.toml" .root | sha256sum | trunc 16 }}
  {{- with .own.annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* headrace.toml: YAML's numbers that are whole stay whole. */}}
{{- define "headrace.toml" -}}
{{- range $section, $fields := .Values.settings }}
[{{ $section }}]
{{- range $field, $value := $fields }}
{{ $field }} = {{ if kindIs "float64" $value }}{{ if eq (floor $value) $value }}{{ printf "%.0f" $value }}{{ else }}{{ toJson $value }}{{ end }}
{{- else if kindIs "map" $value }}{ {{- range $index, $key := keys $value | sortAlpha }}{{ if $index }}, {{ end }}{{ toJson $key }} = {{ toJson (index $value $key) }}{{ end }} }
{{- else }}{{ toJson $value }}{{ end }}
{{- end }}
{{ end }}
{{- end }}
