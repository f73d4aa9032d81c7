# The server's own image. Students' programs run in other containers, which it starts beside itself
# through the host's Docker socket:
#
#   docker build --tag commserver .
#   docker run --rm --volume commserver:/srv/commserver/var commserver migrate --with-platform
#   docker run --publish 127.0.0.1:8765:8765 --publish 127.0.0.1:8080:8080 \
#       --volume commserver:/srv/commserver/var \
#       --volume /var/run/docker.sock:/var/run/docker.sock \
#       --group-add "$(stat -c %g /var/run/docker.sock)" \
#       --env COMMSERVER_BACKEND__HOST=... --env COMMSERVER_BACKEND__TOKEN=... commserver
#
# (`migrate` without --with-platform, and COMMSERVER_DATABASE__URL, beside a platform's own tables.)
#
# --group-add lets its user, who is not root, talk to that socket; whoever may do so is as good as
# root on the host, which is why nothing else runs in this container.
#
# Python packages come from wheels/ if `python3 scripts/prepare.py wheels` has filled it (run
# it again after a change of requirements.lock), else from pip's index (another one by
# --build-arg PIP_INDEX_URL=...). Both are checked against requirements.lock.
#
# BASE: Debian 12, whose Python fits those wheels.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
RUN command -v python3 >/dev/null || { \
        apt-get update -q \
        && apt-get install -qy --no-install-recommends python3 \
        && rm -rf /var/lib/apt/lists/*; }

FROM python AS packages
RUN apt-get update -q && apt-get install -qy --no-install-recommends python3-venv
ARG PIP_INDEX_URL
COPY requirements.lock /build/
COPY wheels /build/wheels/
# The first environment is only there for its pip, which the second, the server's, does without.
RUN python3 -m venv /build/venv \
    && python3 -m venv --without-pip /opt/venv \
    && if ls /build/wheels/*.whl >/dev/null 2>&1; then from="--no-index --find-links /build/wheels"; fi \
    && /build/venv/bin/pip --python /opt/venv/bin/python --disable-pip-version-check install \
        --quiet --no-cache-dir --only-binary :all: --require-hashes ${from:-} \
        --requirement /build/requirements.lock
# What an editable install would do: the code stays beside migrations/ and images/.
RUN echo /srv/commserver > "$(echo /opt/venv/lib/python3*/site-packages)/commserver.pth" \
    && printf '%s\n' '#!/opt/venv/bin/python' 'from commserver.cli import main' 'main()' \
        > /opt/venv/bin/commserver \
    && chmod +x /opt/venv/bin/commserver

FROM python
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /srv/commserver \
        --shell /usr/sbin/nologin commserver \
    && install -d -o commserver -g commserver -m 0750 /srv/commserver/var
COPY --from=packages /opt/venv /opt/venv
WORKDIR /srv/commserver
COPY alembic.ini ./
COPY migrations migrations/
COPY images images/
COPY commserver commserver/
# Its user may not write here, so this cannot be left to the first start.
RUN python3 -m compileall -q commserver migrations
# Inside, all addresses are the container's own: what is reachable is decided by --publish.
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 \
    COMMSERVER_BROWSER__HOST=0.0.0.0 COMMSERVER_HTTP__HOST=0.0.0.0
USER commserver
VOLUME /srv/commserver/var
EXPOSE 8765 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["commserver"]
CMD ["serve"]
