"""Plain manifests for Kustomize, rendered from the chart by helm.

python -m deploy.kustomized            # writes deploy/kustomize anew; needs helm
python -m deploy.kustomized --check    # ends with 1 when a file is not what would be written
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
KUBERNETES: Final = "1.34.0"
HEAD: Final = "# Rendered from deploy/chart by `make kustomize`; change the chart.\n"
_BASE: Final = ("store.claim=headrace-artifacts",)
_STRIMZI: Final = (
    *_BASE,
    *("strimzi.users=true", "strimzi.topics=true", "topics.enabled=false"),
    *("kafka.auth=scram-sha-512", "kafka.caSecret.name=kafka-cluster-ca-cert"),
    "settings.kafka.bootstrap=kafka-kafka-bootstrap:9093",
)
FILES: Final = {
    "base/headrace.yaml": (_BASE, None),
    "strimzi/headrace.yaml": (_STRIMZI, None),
    "keda/scaledobject.yaml": (
        (*_BASE, "keda.enabled=true", 'keda.selector=job="headrace-worker"'),
        "templates/scaledobject.yaml",
    ),
}
"""Each file with the values that it is rendered by, and the one template that it has, None for all."""


def helm() -> str | None:
    """The path of helm, the one of `make deploy-tools` or another; None where there is none."""
    kept = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "headrace" / "go-tools" / "helm"
    return str(kept) if kept.exists() else shutil.which("helm")


def rendered(program: str) -> dict[Path, str]:
    """Each file with its content, by ``program``, which is helm. Raises CalledProcessError."""
    written = {}
    for name, (values, template) in FILES.items():
        command = [program, "template", "headrace", str(HERE / "chart"), "--kube-version", KUBERNETES]
        command += [word for value in values for word in ("--set", value)]
        command += [] if template is None else ["--show-only", template]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        # By helm it is not managed.
        written[HERE / "kustomize" / name] = HEAD + done.stdout.replace("managed-by: Helm", "managed-by: kustomize")
    return written


def main(arguments: list[str]) -> int:
    """Write the files, or with ``--check`` compare; return the exit status."""
    program = helm()
    if program is None:
        sys.stderr.write("helm is not here: `make deploy-tools` builds it with Go\n")
        return 2
    stale = {
        path: content
        for path, content in rendered(program).items()
        if not path.exists() or path.read_text(encoding="utf-8") != content
    }
    for path, content in stale.items():
        if "--check" in arguments:
            sys.stderr.write(f"{path} is not what `make kustomize` writes; run it\n")
        else:
            path.write_text(content, encoding="utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
