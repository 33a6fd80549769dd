-- wrk -t1 -c64 -d5s -s bench/wrk/post.lua URL: one durable message a request, 100-byte texts.
-- DAMSO_TOKEN is an access token of a member, DAMSO_ROOM the room's id.
local here = debug.getinfo(1, 'S').source:match('@(.*/)') or ''
local token = assert(os.getenv('DAMSO_TOKEN'), 'DAMSO_TOKEN is not set')
local room = assert(os.getenv('DAMSO_ROOM'), 'DAMSO_ROOM is not set')
local path = '/v1/rooms/' .. room .. '/messages'
local headers = {
    ['Authorization'] = 'Bearer ' .. token,
    ['Content-Type'] = 'application/json',
}
local number = 0

function request()
    number = number + 1
    local text = string.format('%010d%s', number, string.rep('x', 90))
    return wrk.format('POST', path, headers, '{"text":"' .. text .. '"}')
end

done = dofile(here .. 'summary.lua')('rest-post')
