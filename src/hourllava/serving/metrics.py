"""Figures for Prometheus. Names are those of vLLM where they mean the same. No label is a client's name or id."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hourllava.inference.questions.answers import Answer
from hourllava.serving.protocol import EngineStatus, WatchView

_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 20, 40, 80, 160, 320, 640)
_TOKEN_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"hourllava:{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"hourllava:{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"hourllava:{name}", text, buckets=buckets, registry=registry)

        self._running = gauge("num_requests_running", "questions that are being answered")
        self._waiting = gauge("num_requests_waiting", "questions that wait")
        self._first = histogram("time_to_first_token_seconds", "from the question to the first token")
        self._between = histogram(
            "inter_token_latency_seconds", "mean time between tokens of an answer", _TOKEN_SECONDS
        )
        self._whole = histogram("e2e_request_latency_seconds", "from the question to the end of its answer")
        self._prompt = counter("prompt_tokens", "tokens of prompts")
        self._generated = counter("generation_tokens", "tokens of answers")
        self._success = counter("request_success", "answers", "finished_reason")
        self._rejected = counter("rejected", "requests that ended with an error", "reason")
        self._requests = counter("http_requests", "requests over HTTP", "method", "status")
        self._jobs = gauge("watch_jobs", "videos that wait to be watched, and are watched", "state")
        self._watched = counter("watches", "videos that were watched to an end", "state")
        self._frames = counter("watch_frames", "frames watched for uploads and memories")
        self._watch_seconds = counter("watch_seconds", "time of the watching of uploads and memories")
        self._uploaded = counter("upload_bytes", "bytes of uploads")
        self._cache = gauge("memory_cache_bytes", "bytes of the memories on the disk")
        self._ready = gauge("ready_memories", "memories that are ready on the device")
        self._queries = gauge("mm_cache_queries", "questions about videos since the start of the processes that answer")
        self._hits = gauge("mm_cache_hits", "those of them whose memory was at hand in that process")
        self._replicas = gauge("replicas", "processes that answer")
        self._streams = gauge("open_streams", "streams of events that are open")

    def answered(self, answer: Answer) -> None:
        """Count an answer."""
        self._first.observe(answer.first_token_seconds)
        self._whole.observe(answer.total_seconds)
        if answer.num_new_tokens > 1:
            seconds = answer.total_seconds - answer.first_token_seconds
            self._between.observe(seconds / (answer.num_new_tokens - 1))
        self._prompt.inc(answer.num_prompt_tokens)
        self._generated.inc(answer.num_new_tokens)
        self._success.labels(answer.finish_reason).inc()

    def watched(self, view: WatchView, seconds: float) -> None:
        """Count a video that was watched."""
        self._watched.labels(view.state).inc()
        self._frames.inc(view.frames_done)
        self._watch_seconds.inc(seconds)

    def rejected(self, code: str) -> None:
        """Count an error."""
        self._rejected.labels(code).inc()

    def requested(self, method: str, status: int) -> None:
        """Count a request."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS") else "other"
        self._requests.labels(known, str(status)).inc()

    def uploaded(self, num_bytes: int) -> None:
        """Count bytes of an upload."""
        self._uploaded.inc(num_bytes)

    def page(self, status: EngineStatus, num_streams: int) -> bytes:
        """All figures as Prometheus reads them."""
        self._running.set(status.questions_running)
        self._waiting.set(status.questions_waiting)
        self._jobs.labels("queued").set(status.watches_waiting)
        self._jobs.labels("watching").set(status.watches_running)
        self._cache.set(status.memory_cache_bytes)
        self._ready.set(status.ready_memories)
        self._queries.set(status.memory_queries)
        self._hits.set(status.memory_hits)
        self._replicas.set(status.num_replicas)
        self._streams.set(num_streams)
        return generate_latest(self.registry)
