# The image of container pools: this project at the folder where its deployments look for it, and its packages.
#   docker build -f deployments/images/training.Dockerfile -t prefect-finetune/training:0.1.0 .
# A machine that has the packages already names an image with them instead: --build-arg PACKAGES=their/image:1
ARG BASE=docker.io/library/python:3.11-slim
ARG PACKAGES=packages

FROM ${BASE} AS packages
# The build of torch on PyPI brings CUDA with it; for a CPU alone add
#   --build-arg TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
ARG TORCH=torch==2.13.0
WORKDIR /opt/prefect-finetune
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN pip install --no-cache-dir ${TORCH} \
 && mkdir flows blocks deployments \
 && pip install --no-cache-dir -c constraints.txt . \
 && pip uninstall -y prefect-finetune

FROM ${PACKAGES}
WORKDIR /opt/prefect-finetune
COPY flows flows
COPY blocks blocks
COPY deployments deployments
COPY pyproject.toml constraints.txt prefect.yaml README.md LICENSE ./
# An engine has given the GPUs out already. The store is a volume.
ENV PYTHONPATH=/opt/prefect-finetune PYTHONUNBUFFERED=1 DO_NOT_TRACK=1 FINETUNE_LEASES=off FINETUNE_STORE=/store
CMD ["python", "-m", "prefect", "flow-run", "execute"]
