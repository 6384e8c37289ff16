# An image with the command `hourllava`:
#
#     docker build --tag hourllava .
#     docker run --rm --gpus all -v "$PWD:/videos" -v hourllava-cache:/cache hourllava ask holiday.mp4 "What happens?"
#
# torch for Linux brings CUDA with it (some 5 GB). For an image without, give the address of PyTorch's CPU wheels:
#
#     docker build --tag hourllava:cpu --build-arg TORCH_INDEX_URL=ADDRESS .
#
# Memories and downloaded models lie in /cache; videos are looked for in /videos.

FROM python:3.12-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG TORCH_INDEX_URL=""
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt \
    ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch numpy
COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt /tmp/wheels/*.whl \
    && rm -r /tmp/wheels /tmp/constraints.txt \
    && useradd --create-home --uid 1000 hourllava \
    && install --directory --owner hourllava /cache /videos
USER hourllava
ENV XDG_CACHE_HOME=/cache HF_HOME=/cache/huggingface
WORKDIR /videos
VOLUME /cache
ENTRYPOINT ["hourllava"]
CMD ["--help"]
