# Serves a compiled program:
#   docker build -t mllm3rec .
#   docker run -p 8000:8000 -e MLLM3REC_BEARER -e OPENAI_API_KEY \
#     -v "$PWD/artifact:/artifact:ro" -v "$PWD/data:/data:ro" -v mllm3rec-cache:/cache mllm3rec
FROM python:3.12-slim

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY signatures signatures
COPY programs programs
COPY evaluate evaluate
COPY optimize optimize
COPY mllm3rec mllm3rec
RUN pip install --no-cache-dir ".[serve,local]" \
    && useradd --create-home --uid 10001 serving \
    && install -d -o serving /cache

USER serving
ENV MLLM3REC_CACHE=/cache
# The default encoder. Before VOLUME: a new named volume begins with what the image has here.
RUN mllm3rec models fetch minilm
VOLUME ["/cache"]
EXPOSE 8000
HEALTHCHECK --start-period=120s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=5)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["mllm3rec", "serve"]
CMD ["/artifact", "/data", "--host", "0.0.0.0", "--allow-host", "*", "--ledger", "/cache/serve.jsonl"]
