# `transformers serve` in a container, at the versions of training, for serve.runtime docker or kubernetes:
#   serve.transformers.image=prefect-finetune/serving:0.1.0
#   docker build -f deployments/images/serving.Dockerfile -t prefect-finetune/serving:0.1.0 .
# vLLM, SGLang, llama.cpp and NIM have images of their makers: serve.<variant>.image.
ARG BASE=docker.io/library/python:3.11-slim

FROM ${BASE}
ARG TORCH=torch==2.13.0
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir ${TORCH} \
 && pip install --no-cache-dir -c /tmp/constraints.txt "transformers[serving]" accelerate
# A served model is a folder of the store; nothing is fetched.
ENV HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
CMD ["transformers", "serve", "--help"]
