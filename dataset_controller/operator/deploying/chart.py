"""The Helm chart: the objects of an installation, with what users may set in its place."""

from __future__ import annotations

import json
import re
import textwrap
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dataset_controller.fields import Model
from dataset_controller.operator.deploying.installing import (
    WEBHOOK_PORT,
    Installation,
    claim_rights,
    deployment,
    lease_rights,
    manifests_text,
    metrics_service,
    people_roles,
    rights,
    service_account,
)
from dataset_controller.operator.deploying.node_driver import NodeDriver, driver_parts
from dataset_controller.operator.deploying.values import Values
from dataset_controller.operator.deploying.webhooks import webhook_objects
from dataset_controller.schema import field_texts

if TYPE_CHECKING:
    from pydantic import BaseModel

_NAME, _SPACE, _IMAGE, _SERVED, _PULL = "XNAMEX", "XSPACEX", "XIMAGEX", "XSERVEDX", "XPULLX"
_REPLICAS = 987654321
_WORDS = {
    _NAME: '{{ include "forebay.name" $ }}',
    _SPACE: "{{ $.Release.Namespace | quote }}",
    _IMAGE: '{{ include "forebay.image" $ | quote }}',
    _SERVED: "{{ . | quote }}",
    _PULL: "{{ $.Values.image.pullPolicy }}",
    str(_REPLICAS): "{{ $.Values.replicas }}",
    "/XCACHEX": "{{ $.Values.csi.cache | quote }}",
    "/XKUBELETX": "{{ $.Values.csi.kubeletDir | quote }}",
    "XRELEASEX": "{{ $.Release.Name | quote }}",
}
"""What stands in a built object, and what puts a user's own in its place."""
_BLOCK = re.compile(r"^( *).*BLOCK(\w+?)BLOCK.*\n", re.MULTILINE)
"""A line that becomes several ones, or none."""
_POD_FIELDS = {
    "imagePullSecrets": "image.pullSecrets",
    "nodeSelector": "nodeSelector",
    "tolerations": "tolerations",
    "affinity": "affinity",
    "priorityClassName": "priorityClassName",
}
"""Fields of a pod that there may be, and the values that they come from."""
_HELPERS = """\
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
"""
_NOTES = """\
{{ include "forebay.name" . }} looks after the Datasets, CacheRuntimes and DataLoads of
{{- if .Values.namespaces }} {{ join ", " .Values.namespaces }}{{ else }} all namespaces{{ end }}.

  kubectl -n {{ .Release.Namespace }} rollout status deployment/{{ include "forebay.name" . }}
  kubectl get dset,cache,load -A

Helm makes definitions when it installs, and never changes them: before each upgrade, kubectl apply -f crds/ of the
new chart. Nor does it delete them, for that would delete every Dataset.
"""


def chart_files() -> dict[str, str]:
    """Return the files of the chart by their paths, without the definitions."""
    return {
        "Chart.yaml": _chart(),
        "values.yaml": values_text(Values()),
        "values.schema.json": json.dumps(Values.model_json_schema(by_alias=True), indent=2) + "\n",
        "templates/_helpers.tpl": _HELPERS,
        "templates/rights.yaml": _rights(),
        "templates/controller.yaml": _controller(),
        "templates/webhook.yaml": _webhook(),
        "templates/csi.yaml": _csi(),
        "templates/NOTES.txt": _NOTES,
    }


def values_text(values: BaseModel) -> str:
    """Return values as YAML, each with what it means above it."""
    return f"# {_sentence(values)} Generated: see docs/generate_crds.py.\n" + "".join(_value_lines(values, ""))


def _value_lines(values: BaseModel, indent: str) -> list[str]:
    import yaml

    texts, lines = field_texts(type(values)), []
    for name, field in type(values).model_fields.items():
        alias, value = field.alias or name, getattr(values, name)
        if alias in texts:
            lines += [f"{indent}# {line}\n" for line in textwrap.wrap(texts[alias], 110)]
        if isinstance(value, Model):
            lines += [f"{indent}{alias}:\n", *_value_lines(value, f"{indent}  ")]
        else:
            lines.append(textwrap.indent(yaml.safe_dump({alias: value}, sort_keys=False), indent))
    return lines


def _sentence(values: BaseModel) -> str:
    return " ".join((type(values).__doc__ or "").split())


def _chart() -> str:
    import yaml

    number = version("forebay")
    return yaml.safe_dump(
        {
            "apiVersion": "v2",
            "name": "forebay",
            "description": "Versioned datasets on Kubernetes, cached on the disks of its nodes",
            "type": "application",
            "version": number,
            "appVersion": number,
            "kubeVersion": ">=1.20.0-0",
        },
        sort_keys=False,
    )


def _rights() -> str:
    here, served = Installation(_NAME, _SPACE, _IMAGE), Installation(_NAME, _SPACE, _IMAGE, served=[_SERVED])
    return (
        _template([service_account(here)])
        + "{{- if $.Values.namespaces }}\n{{- range $.Values.namespaces }}\n"
        + _template(rights(served))
        + "{{- end }}\n{{- else }}\n"
        + _template(rights(here))
        + "{{- end }}\n"
        + _only_if("csi.claims", _template(claim_rights(here)))
        + _template(lease_rights(here))
        + _only_if("peopleRoles", _template(people_roles(here)))
    )


def _controller() -> str:
    here = Installation(_NAME, _SPACE, _IMAGE, replicas=_REPLICAS, webhook=False)
    made, service = deployment(here), metrics_service(here)
    labels = made["spec"]["selector"]["matchLabels"] | {"app.kubernetes.io/instance": "XRELEASEX"}
    made["spec"]["selector"]["matchLabels"] = service["spec"]["selector"] = labels
    template = made["spec"]["template"]
    template["metadata"] = {"BLOCKpodAnnotationsBLOCK": "", "labels": {**labels, "BLOCKpodLabelsBLOCK": ""}}
    template["spec"] |= {f"BLOCK{field}BLOCK": "" for field in _POD_FIELDS}
    container = template["spec"]["containers"][0]
    container.update(resources="BLOCKresourcesBLOCK", imagePullPolicy=_PULL)
    container["command"] += ["BLOCKserveBLOCK", "BLOCKclaimsBLOCK", "BLOCKwebhookBLOCK"]
    return _template([made]) + _only_if("metricsService", _template([service]))


def _webhook() -> str:
    objects = webhook_objects(Installation(_NAME, _SPACE, _IMAGE))
    objects[0]["spec"]["selector"] |= {"app.kubernetes.io/instance": "XRELEASEX"}
    for each in objects[-2:]:
        each["webhooks"][0]["BLOCKnamespaceSelectorBLOCK"] = ""
    return _only_if("webhook", _template(objects))


def _csi() -> str:
    here = NodeDriver(_SPACE, _IMAGE, cache="/XCACHEX", kubelet_dir="/XKUBELETX")
    *others, pods = driver_parts(here)
    spec = pods["spec"]["template"]["spec"]
    spec["BLOCKimagePullSecretsBLOCK"] = ""
    spec["containers"][0]["imagePullPolicy"] = _PULL
    return _only_if("csi.enabled", _template([*others, pods]))


def _only_if(value: str, template: str) -> str:
    return f"{{{{- if $.Values.{value} }}}}\n{template}{{{{- end }}}}\n"


def _template(documents: list[dict[str, Any]]) -> str:
    """Return documents as a template: what stands for values becomes what puts them there."""
    text = _BLOCK.sub(_block, manifests_text(documents))
    for word, puts in _WORDS.items():
        text = text.replace(word, puts)
    return text


def _block(found: re.Match[str]) -> str:
    indent, name = found.groups()
    return textwrap.indent("".join(f"{line}\n" for line in _block_lines(name, len(indent))), indent)


def _block_lines(name: str, indent: int) -> list[str]:
    if name == "serve":
        return ["{{- range $.Values.namespaces }}", "- --namespace", "- {{ . | quote }}", "{{- end }}"]
    if name == "claims":
        both = "csi.claims makes volumes of the whole cluster: leave namespaces empty"
        refused = f'{{{{- if $.Values.namespaces }}}}{{{{ fail "{both}" }}}}{{{{- end }}}}'
        return ["{{- if $.Values.csi.claims }}", refused, "- --claims", "{{- end }}"]
    if name == "webhook":
        port = ["- --webhook-port", f'- "{WEBHOOK_PORT}"']
        named = ["- --webhook-name", '- {{ include "forebay.name" $ }}-webhook']
        return ["{{- if $.Values.webhook }}", *port, *named, "{{- end }}"]
    if name == "namespaceSelector":
        chosen = "- {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson $.Values.namespaces }}}"
        return [
            "{{- if $.Values.namespaces }}",
            "namespaceSelector:",
            "  matchExpressions:",
            f"    {chosen}",
            "{{- end }}",
        ]
    if name == "podLabels":
        return ["{{- with $.Values.podLabels }}", f"{{{{- toYaml . | nindent {indent} }}}}", "{{- end }}"]
    field, value = ("annotations", name) if name == "podAnnotations" else (name, _POD_FIELDS.get(name, name))
    shown = "{{- toYaml . | nindent %d }}" % (indent + 2)  # noqa: UP031 - braces
    if field == "priorityClassName":
        return [f"{{{{- with $.Values.{value} }}}}", f"{field}: {{{{ . | quote }}}}", "{{- end }}"]
    return [f"{{{{- with $.Values.{value} }}}}", f"{field}:", f"  {shown}", "{{- end }}"]
