# Two stages: the first compiles the native engine and installs bluejay into /opt/bluejay, the second has no compiler and
# runs as an ordinary user. The model is mounted at /models/NAME/model, and the API calls it NAME:
#
#     docker build --tag bluejay .
#     docker run --publish 8000:8000 --volume ./models/bluejay-nano/model:/models/bluejay-nano/model:ro --stop-timeout 90 bluejay
#
# For a model of another name, put the command behind `bluejay`: serve /models/NAME/model --host 0.0.0.0.
# The server finishes what runs for up to a minute (--drain); docker would kill it after ten seconds.
# On x86-64 pip's default torch carries CUDA, about 3 GB; --build-arg PIP_INDEX_URL=... names an index with a CPU build.
FROM debian:bookworm-slim AS build
ARG PIP_INDEX_URL
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates g++ python3-dev python3-venv
RUN python3 -m venv /opt/bluejay
COPY constraints.txt /src/
# torch first and by itself, so that a change of the code does not bring it anew.
RUN /opt/bluejay/bin/pip install --no-cache-dir --constraint /src/constraints.txt torch
COPY . /src
RUN /opt/bluejay/bin/pip install --no-cache-dir --constraint /src/constraints.txt /src

FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates libgomp1 python3 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 bluejay && install --directory --owner bluejay /models
COPY --from=build /opt/bluejay /opt/bluejay
ENV PATH=/opt/bluejay/bin:$PATH HF_HOME=/models/hub MPLCONFIGDIR=/tmp/matplotlib
USER bluejay
WORKDIR /home/bluejay
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=60s CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["bluejay"]
CMD ["serve", "/models/bluejay-nano/model", "--host", "0.0.0.0"]
