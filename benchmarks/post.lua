-- Posts the files FOLDER/0 … FOLDER/(COUNT - 1) in turn, as they are, and prints what came back as one line of JSON.
-- wrk … -s post.lua URL -- FOLDER COUNT CONTENT-TYPE

local requests, turn = {}, 0

function init(arguments)
  local headers = { ["Content-Type"] = arguments[3] }
  for number = 0, tonumber(arguments[2]) - 1 do
    local file = assert(io.open(arguments[1] .. "/" .. number, "rb"))
    requests[number] = wrk.format("POST", nil, headers, file:read("*a"))
    file:close()
  end
end

function request()
  local content = requests[turn]
  turn = (turn + 1) % (#requests + 1)
  return content
end

function done(summary, latency, all)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
