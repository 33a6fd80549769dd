-- wrk -t1 -c64 -d5s -s bench/wrk/history.lua URL: the last 50 events of a room.
-- DAMSO_TOKEN is an access token of a member, DAMSO_ROOM the room's id.
local here = debug.getinfo(1, 'S').source:match('@(.*/)') or ''
local token = assert(os.getenv('DAMSO_TOKEN'), 'DAMSO_TOKEN is not set')
local room = assert(os.getenv('DAMSO_ROOM'), 'DAMSO_ROOM is not set')

wrk.method = 'GET'
wrk.path = '/v1/rooms/' .. room .. '/messages?limit=50'
wrk.headers['Authorization'] = 'Bearer ' .. token
done = dofile(here .. 'summary.lua')('rest-history')
