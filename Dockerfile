# Worker image: Beam's SDK harness with pagepairs and all it needs installed, so that workers install nothing.
#   docker build --tag pagepairs-worker .
# Beam's version here, in pyproject.toml and at the launcher must be one; a test compares the first two.
ARG BEAM_VERSION=2.77.0
FROM apache/beam_python3.11_sdk:${BEAM_VERSION}

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
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} ".[gcp,tflite]" \
    && pip check

# Every stage starts as many threads as it needs itself; libraries that start their own would compete with them.
ENV OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
ENTRYPOINT ["/opt/apache/beam/boot"]
