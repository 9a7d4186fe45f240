# syntax=docker/dockerfile:1
# One image for every role: coordinator, agent and worker. docker-compose.yml runs a whole federation from it.
#
#   docker build -t llmasos .
#   docker build -t llmasos:gpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .

ARG PYTHON=3.11-slim-bookworm

# --- everything that is installed, in one folder that moves to the image as it is -------------------------------------------
FROM python:${PYTHON} AS build
# torch from an index of its own: the CPU build has a tenth of the CUDA build's size.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/llmasos
WORKDIR /src

# What compiles the reducer's loops; it stays out of the image.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

# Layers in the order in which they change: torch, the other packages, our code.
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/llmasos/bin/pip install --constraint constraints.txt --extra-index-url "$TORCH_INDEX" torch
COPY pyproject.toml ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*project['dependencies'], *project['optional-dependencies']['train'], sep='\n')" > requirements.txt \
 && /opt/llmasos/bin/pip install --constraint constraints.txt --requirement requirements.txt
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/llmasos/bin/pip install --no-deps .

# --- the image --------------------------------------------------------------------------------------------------------------
FROM python:${PYTHON}
# llmasos runs the coordinator and the operator's commands; llmasos-worker the training, and owns nothing but its job folders.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin llmasos \
 && useradd --system --uid 10002 --no-create-home --shell /usr/sbin/nologin llmasos-worker \
 # A new volume takes owner and mode of the folder that it is mounted on.
 && install -d -o llmasos -g llmasos -m 0700 /var/lib/llmasos/coordinator /prepared /results \
      /invitations/asyncio /invitations/email /invitations/multiprocessing \
 && install -d -m 0700 /var/lib/llmasos/participant
COPY --from=build /opt/llmasos /opt/llmasos
COPY configs /opt/llmasos/configs
ENV PATH=/opt/llmasos/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER llmasos
WORKDIR /var/lib/llmasos
CMD ["llmasos", "--help"]
