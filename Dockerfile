# Two images of one installation:
#   docker build --target worker  --tag pagepairs-worker  .   Beam's SDK harness for Dataflow and Flink, with or without a GPU
#   docker build --target trainer --tag pagepairs-trainer .   trains, samples and evaluates
# Beam's version here, in pyproject.toml and at the launcher must be one; a test compares the first two, the workers compare the last.
ARG BEAM_VERSION=2.77.0
# torch's wheels bring CUDA's libraries, so any base with Python 3.11 and glibc is one for GPUs; the driver is the machine's.
ARG BASE=python:3.11-slim-bookworm
FROM apache/beam_python3.11_sdk:${BEAM_VERSION} AS sdk

# hadolint ignore=DL3006
FROM ${BASE} AS installed
# The default build of torch needs a driver that knows its CUDA version; name a package index with older ones where the driver does not.
ARG TORCH_INDEX=""
WORKDIR /opt/pagepairs
COPY pyproject.toml setup.py README.md LICENSE ./
COPY pagepairs pagepairs
COPY pipeline pipeline
COPY encoders encoders
COPY filters filters
COPY dedup dedup
COPY train train
# What is installed is the package here, and pyproject.toml bounds what it needs.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} ".[gcp,tflite]" \
    && pip check
# Where the container runtime mounts the driver: by NVIDIA's toolkit, and on Dataflow.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility LD_LIBRARY_PATH=/usr/local/nvidia/lib64

FROM installed AS worker
# An encoder to bake in, as --encoder names it: then workers download nothing, and may not.
ARG ENCODER=""
ENV HF_HOME=/opt/weights
RUN if [ -n "${ENCODER}" ]; then \
      python -c "import sys; from encoders import load_encoder; load_encoder(sys.argv[1], weights='', device='cpu', threads=1)" "${ENCODER}"; \
    fi
ENV HF_HUB_OFFLINE=${ENCODER:+1}
# Every stage starts as many threads as it needs itself; libraries that start their own would compete with them.
ENV OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
COPY --from=sdk /opt/apache/beam /opt/apache/beam
ENTRYPOINT ["/opt/apache/beam/boot"]

FROM installed AS trainer
WORKDIR /work
ENTRYPOINT ["pagepairs"]
CMD ["--help"]
