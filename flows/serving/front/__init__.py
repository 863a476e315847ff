"""The front: one HAProxy an endpoint name, which gives the name one address for good.

The address survives promotions, roll-backs, restarts of the model and of the watcher. `lifecycle` starts, finds and
stops it; `traffic` says which servers get the requests, without a reload; `tokens` says who may ask; `following` keeps
it at what serves. All of it lies in the folder `<endpoints>/<name>/front/`:

    record.json     the address and the options (FrontRecord)
    process.json    the process, to be told from a later one with its number
    shares.json     which servers get which share of the requests
    tokens.json     names, times and SHA-256 of the tokens (mode 0600)
    haproxy.cfg, servers.cfg, access.map, tokens.map, errors/     what HAProxy reads when it starts
    admin.sock      HAProxy's runtime API (mode 0600)
"""
