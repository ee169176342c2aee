-- require("json"): decode(text) and encode(value), in plain Lua.
--
-- Numbers: integers of 64 bits stay integers, all else are doubles; a double without a
-- fraction is written as an integer, as Lua 5.1 scripts expect. null is nil when read; write
-- json.null for it. An array that was read stays an array when written, even if empty; a new
-- table is an array if its keys are 1 to n, else an object. Keys are written in order, so
-- that a replay writes the same text.

local type, pairs, next, error = type, pairs, next, error
local setmetatable, getmetatable, tostring, tonumber = setmetatable, debug.getmetatable, tostring, tonumber
local find, sub, byte, gsub, format = string.find, string.sub, string.byte, string.gsub, string.format
local concat, sort = table.concat, table.sort
local char = utf8.char
local mathtype, huge = math.type, math.huge

local MAX_DEPTH = 128
local ARRAY = { __metatable = false }
local null = setmetatable({}, { __metatable = false, __newindex = function() error("json.null cannot be changed", 2) end })

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }
local function escape(c)
  return ESCAPES[c] or format("\\u%04x", byte(c))
end

local function quoted(s)
  if find(s, '[%c"\\]') then
    s = gsub(s, '[%c"\\]', escape)
  end
  return '"' .. s .. '"'
end

-- Keys come again with every message: their written form is remembered, up to a bound.
local KEYS, known = {}, 0
local function written_key(k)
  local w = quoted(k) .. ":"
  if known < 1000 and #k <= 64 then
    KEYS[k], known = w, known + 1
  end
  return w
end

local function number(n)
  if mathtype(n) == "integer" then
    return n .. ""
  end
  if n % 1 == 0 and n > -9007199254740992.0 and n < 9007199254740992.0 then
    return format("%d", n)
  end
  if n ~= n or n == huge or n == -huge then
    error("json: " .. n .. " is not JSON", 0)
  end
  local text = n .. "" -- 14 digits
  if tonumber(text) ~= n then
    text = format("%.17g", n)
  end
  return text
end

-- The length of an array, or nil where the table is none.
local function length(t)
  local n, count = 0, 0
  local array = getmetatable(t) == ARRAY
  for k in next, t do
    if mathtype(k) ~= "integer" or k < 1 then
      return nil
    end
    count = count + 1
    if k > n then
      n = k
    end
  end
  if array and n <= 2 * count + 8 then
    return n
  end
  return n > 0 and n == count and n or nil
end

local write

-- A copy whose keys are texts; error for a key that can be none.
local function with_text_keys(t)
  local copy = {}
  for k, v in next, t do
    local kind = type(k)
    if kind == "number" then
      copy[number(k)] = v
    elseif kind == "string" then
      copy[k] = v
    else
      error("json: a key of type " .. kind .. " cannot be written", 0)
    end
  end
  return copy
end

local function write_object(t, out, n, depth)
  local keys, count = {}, 0
  for k in next, t do
    if type(k) ~= "string" then
      return write_object(with_text_keys(t), out, n, depth)
    end
    count = count + 1
    keys[count] = k
  end
  if count > 1 then
    sort(keys)
  end
  local separator = "{"
  for i = 1, count do
    local k = keys[i]
    local v = t[k]
    k = KEYS[k] or written_key(k)
    local kind = type(v)
    if kind == "number" then
      n = n + 1
      out[n] = separator .. k .. number(v)
    elseif kind == "string" then
      n = n + 1
      out[n] = separator .. k .. quoted(v)
    else
      out[n + 1] = separator .. k
      n = write(v, out, n + 1, depth)
    end
    separator = ","
  end
  out[n + 1] = count == 0 and "{}" or "}"
  return n + 1
end

local function write_array(t, count, out, n, depth)
  local separator = "["
  for i = 1, count do
    out[n + 1] = separator
    n = write(t[i], out, n + 1, depth)
    separator = ","
  end
  out[n + 1] = count == 0 and "[]" or "]"
  return n + 1
end

function write(v, out, n, depth)
  local kind = type(v)
  if kind == "table" and v ~= null then
    if depth >= MAX_DEPTH then
      error("json: nested deeper than 128, or in a circle", 0)
    end
    local count = type((next(v))) ~= "string" and length(v)
    if count then
      return write_array(v, count, out, n, depth + 1)
    end
    return write_object(v, out, n, depth + 1)
  end
  n = n + 1
  if kind == "number" then
    out[n] = number(v)
  elseif kind == "string" then
    out[n] = quoted(v)
  elseif kind == "boolean" then
    out[n] = v and "true" or "false"
  elseif v == nil or v == null then
    out[n] = "null"
  else
    error("json: a value of type " .. kind .. " cannot be written", 0)
  end
  return n
end

local function encode(value)
  local out = {}
  return concat(out, "", 1, write(value, out, 0, 0))
end

local function fail(what, at)
  error("json: " .. what .. " at byte " .. at, 0)
end

local UNESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

-- A text whose escapes are replaced; lone surrogates become U+FFFD.
local function unescaped(s, at)
  local parts, n, from = {}, 0, 1
  while true do
    local slash = find(s, "\\", from, true)
    if not slash then
      parts[n + 1] = sub(s, from)
      return concat(parts, "", 1, n + 1)
    end
    parts[n + 1] = sub(s, from, slash - 1)
    local letter = sub(s, slash + 1, slash + 1)
    from = slash + 2
    if letter == "u" then
      local hex = sub(s, from, from + 3)
      if not find(hex, "^%x%x%x%x$") then
        fail("bad \\u escape", at + slash)
      end
      local code = tonumber(hex, 16)
      from = from + 4
      if code >= 0xD800 and code < 0xDC00 then
        local low = sub(s, from, from + 5)
        if find(low, "^\\u[dD][c-fC-F]%x%x$") then
          code = 0x10000 + (code - 0xD800) * 1024 + (tonumber(sub(low, 3), 16) - 0xDC00)
          from = from + 6
        else
          code = 0xFFFD
        end
      elseif code >= 0xDC00 and code < 0xE000 then
        code = 0xFFFD
      end
      parts[n + 2] = char(code)
    else
      parts[n + 2] = UNESCAPES[letter] or fail("bad escape", at + slash)
    end
    n = n + 2
  end
end

-- The text that begins behind the quote at `at`, and the place behind its end.
local function read_string(s, at)
  local from = at + 1
  while true do
    local stop = find(s, '[%c"\\]', from)
    local c = stop and byte(s, stop)
    if c == 34 then
      return sub(s, at + 1, stop - 1), stop + 1
    elseif c == 92 then
      local last = stop
      while true do
        last = find(s, '["\\]', last)
        if not last then
          fail("a string without an end", at)
        end
        if byte(s, last) == 34 then
          break
        end
        last = last + 2
      end
      local text = sub(s, at + 1, last - 1)
      if find(text, "[%z\1-\31]") then
        fail("a control character in a string", at)
      end
      return unescaped(text, at), last + 1
    elseif c == 127 then
      from = stop + 1
      local last = find(s, '[\0-\31"\\]', from)
      if last and byte(s, last) == 34 then
        return sub(s, at + 1, last - 1), last + 1
      end
    else
      fail(c and "a control character in a string" or "a string without an end", stop or at)
    end
  end
end

local read

local LITERALS = { t = { "^true()", true }, f = { "^false()", false }, n = { "^null()", nil } }

local function read_number(s, at)
  local _, stop = find(s, "^-?%d+", at)
  if not stop or find(s, "^-?0%d", at) then
    fail("no value", at)
  end
  local fraction = select(2, find(s, "^%.%d+", stop + 1)) or stop
  local exponent = select(2, find(s, "^[eE][+-]?%d+", fraction + 1)) or fraction
  local text = sub(s, at, exponent)
  if exponent == stop then
    return tonumber(text), stop + 1 -- an integer beyond 64 bits becomes a double
  end
  return tonumber(text), exponent + 1
end

function read(s, at, depth)
  at = find(s, "[^ \t\r\n]", at) or fail("no value", #s + 1)
  local c = sub(s, at, at)
  if c == '"' then
    return read_string(s, at)
  elseif c == "{" or c == "[" then
    if depth >= MAX_DEPTH then
      fail("nested deeper than 128", at)
    end
    depth = depth + 1
    local closing = c == "{" and "}" or "]"
    local t = c == "[" and setmetatable({}, ARRAY) or {}
    at = find(s, "[^ \t\r\n]", at + 1) or fail("no end", #s + 1)
    if sub(s, at, at) == closing then
      return t, at + 1
    end
    local n = 0
    while true do
      local key
      if c == "{" then
        at = find(s, "[^ \t\r\n]", at)
        if not at or byte(s, at) ~= 34 then
          fail("no key", at or #s + 1)
        end
        key, at = read_string(s, at)
        at = find(s, "[^ \t\r\n]", at)
        if not at or byte(s, at) ~= 58 then
          fail("no colon", at or #s + 1)
        end
        at = at + 1
      else
        n = n + 1
        key = n
      end
      t[key], at = read(s, at, depth)
      at = find(s, "[^ \t\r\n]", at) or fail("no end", #s + 1)
      local mark = sub(s, at, at)
      at = at + 1
      if mark == closing then
        return t, at
      elseif mark ~= "," then
        fail("no comma", at - 1)
      end
    end
  end
  local literal = LITERALS[c]
  if literal then
    local _, _, stop = find(s, literal[1], at)
    if stop then
      return literal[2], stop
    end
    fail("no value", at)
  end
  return read_number(s, at)
end

local function decode(text)
  if type(text) ~= "string" then
    error("json: decode takes a string, not " .. type(text), 0)
  end
  local value, at = read(text, 1, 0)
  at = find(text, "[^ \t\r\n]", at)
  if at then
    fail("more text", at)
  end
  return value
end

return { decode = decode, encode = encode, null = null }
