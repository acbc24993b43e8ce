"""The HTTP API that our own engine servers share: SGLang's, as far as Heavy speaks it.

`generation` is the seam to an engine, `request` what arrives, `completion` what leaves, `server` the routes,
`process` the life of the process around them.
"""
