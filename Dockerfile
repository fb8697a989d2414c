# syntax=docker/dockerfile:1
# The page, and the command line, with the shipped models. No root, nothing is written but to /tmp.
#
#   docker build -t manymask .
#   docker build -t manymask:cuda --build-arg TORCH_BUILD=cu130 .       # a build that PyTorch offers for this release
#   docker build -t manymask --build-arg REVISION="$(git rev-parse --short=12 HEAD)" .     # named in what it writes
#   docker run --read-only --tmpfs /tmp -p 127.0.0.1:7860:7860 manymask
#   docker run --read-only --tmpfs /tmp -v "$PWD:/data" --user "$(id -u)" manymask segment scans --out masks --model isic2018

FROM python:3.11-slim-bookworm AS build
ARG TORCH_BUILD=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/manymask
ENV PATH=/opt/manymask/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
# torch comes first and alone: then nothing that follows can ask for another build of it
RUN pip install -c constraints.txt --index-url "https://download.pytorch.org/whl/${TORCH_BUILD}" torch
COPY . .
RUN pip install -c constraints.txt '.[app,dicom,nifti,heif]' ./models

FROM python:3.11-slim-bookworm
COPY --from=build /opt/manymask /opt/manymask
RUN useradd --uid 10001 --no-create-home manymask && install -d -o manymask /data
USER 10001
ARG REVISION=
ENV PATH=/opt/manymask/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 MANYMASK_REVISION=$REVISION
WORKDIR /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
ENTRYPOINT ["manymask"]
CMD ["serve", "--host", "0.0.0.0"]
