-- What every script here prints at its end: one JSON line, as damso-bench does.
return function(scenario)
    return function(summary, latency, _)
        local seconds = summary.duration / 1e6
        local errors = summary.errors
        io.write(string.format(
            '{"scenario":"%s","seconds":%.3f,"requests":%d,"requests_per_s":%.0f,' ..
            '"bytes_per_request":%.1f,"errors":%d,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f}\n',
            scenario, seconds, summary.requests, summary.requests / seconds,
            summary.bytes / math.max(summary.requests, 1),
            errors.connect + errors.read + errors.write + errors.status + errors.timeout,
            latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
    end
end
