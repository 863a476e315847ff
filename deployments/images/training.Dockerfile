# The image of container pools: this project at the folder where its deployments look for it, and its packages.
#   docker build -f deployments/images/training.Dockerfile -t prefect-finetune/training:0.1.0 .
# A machine that has the packages already names an image with them instead: --build-arg PACKAGES=their/image:1
# The project is one of them (`pip install --no-deps -e .` in a checkout at /opt/prefect-finetune, of this version):
# flows ask the metadata of their own package for its version.
ARG BASE=docker.io/library/python:3.11-slim
ARG PACKAGES=packages

FROM ${BASE} AS packages
# The build of torch on PyPI brings CUDA with it; for a CPU alone add
#   --build-arg TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
ARG TORCH=torch==2.13.0
WORKDIR /opt/prefect-finetune
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Editable: its code comes to these folders below, in a layer that a change of the code makes anew without the packages.
RUN pip install --no-cache-dir ${TORCH} \
 && mkdir flows blocks deployments \
 && touch flows/__init__.py blocks/__init__.py deployments/__init__.py \
 && pip install --no-cache-dir -c constraints.txt -e .

FROM ${PACKAGES}
WORKDIR /opt/prefect-finetune
COPY flows flows
COPY blocks blocks
COPY deployments deployments
COPY pyproject.toml constraints.txt prefect.yaml README.md LICENSE ./
# An engine has given the GPUs out already. The store is a volume.
ENV PYTHONPATH=/opt/prefect-finetune PYTHONUNBUFFERED=1 DO_NOT_TRACK=1 FINETUNE_LEASES=off FINETUNE_STORE=/store
CMD ["python", "-m", "prefect", "flow-run", "execute"]
