"""The OpenVINO engine: any INT4 chat model directory on a CPU, with continuous batching and prefix caching.

The pipeline holds Python's interpreter lock during a whole decoding step, so it lives in a process of its own
(`core`), and the HTTP side (`engine`) speaks with it over a socket pair.
"""
