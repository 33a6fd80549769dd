-- wrk -t1 -c64 -d5s -s bench/wrk/healthz.lua URL: the shortest way through HTTP.
local here = debug.getinfo(1, 'S').source:match('@(.*/)') or ''

wrk.method = 'GET'
wrk.path = '/healthz'
done = dofile(here .. 'summary.lua')('rest-healthz')
