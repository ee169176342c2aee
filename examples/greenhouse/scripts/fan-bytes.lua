-- The command fan {"on": true} as two bytes: 01 is the fan, then 00 or 01.
local json = require("json")
function encode(msg, topic)
  local command = json.decode(msg)
  if command.method ~= "fan" then error("this device knows the command fan only") end
  return string.char(1, command.params.on and 1 or 0)
end
