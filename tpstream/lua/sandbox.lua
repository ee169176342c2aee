-- What a script can reach, and what stops it (docs/scripts.md).
--
-- Loaded once per script version into a runtime of its own, with the script's source, the
-- json module, the CPU budget in seconds and the largest result in bytes. Returns
-- call(entry, msg, topic) -> status, text. Each call runs the chunk anew in an environment
-- of its own: nothing that one message leaves behind reaches another, so that a replay gives
-- the same results.

local source, json, cpu_seconds, max_result = ...

local OK, ERROR, CPU, MEMORY = 0, 1, 2, 3
local MAX_TEXT = 1000000 -- bytes that one call of a string function may make or search
local MAX_PATTERN = 500
local MAX_RANGE = 1000000

local pcall, error, type, rawget, rawset, tostring, select = pcall, error, type, rawget, rawset, tostring, select
local setmetatable, getmetatable = setmetatable, getmetatable
local clock, sethook, encode = os.clock, debug.sethook, json.encode
local S, T, M, U = string, table, math, utf8

-- Read-only views of the libraries: a script shares nothing with its other calls.

local views = {}

local function view(library)
  local t = setmetatable({}, {
    __index = library,
    __metatable = false,
    __newindex = function()
      error("the libraries cannot be changed", 2)
    end,
  })
  views[t] = true
  return t
end

-- Guards: lengths that C code, which cannot be interrupted, may be given.

local function text(value, name)
  local kind = type(value)
  if kind == "number" then
    return tostring(value)
  elseif kind ~= "string" then
    error("bad argument to '" .. name .. "' (string expected, got " .. kind .. ")", 3)
  end
  return value
end

local function pattern_guard(s, pattern, name)
  s, pattern = text(s, name), text(pattern, name)
  if #s > MAX_TEXT then
    error(name .. ": the text is longer than " .. MAX_TEXT .. " bytes", 3)
  elseif #pattern > MAX_PATTERN then
    error(name .. ": the pattern is longer than " .. MAX_PATTERN .. " bytes", 3)
  end
  return s, pattern
end

local find, match, gmatch, gsub, rep, format = S.find, S.match, S.gmatch, S.gsub, S.rep, S.format

local strings = {
  byte = S.byte,
  char = S.char,
  len = S.len,
  lower = S.lower,
  upper = S.upper,
  reverse = S.reverse,
  sub = S.sub,
  pack = S.pack,
  unpack = S.unpack,
  packsize = S.packsize,
  format = function(f, ...)
    if #text(f, "format") > MAX_PATTERN then
      error("format: the format is longer than " .. MAX_PATTERN .. " bytes", 2)
    end
    return format(f, ...)
  end,
  rep = function(s, n, separator)
    s = text(s, "rep")
    if type(n) ~= "number" then
      error("bad argument to 'rep' (number expected)", 2)
    end
    if n > MAX_TEXT or n * (#s + (separator and #text(separator, "rep") or 0)) > MAX_TEXT then
      error("rep: the result is longer than " .. MAX_TEXT .. " bytes", 2)
    end
    return rep(s, n, separator)
  end,
  find = function(s, pattern, init, plain)
    if not plain then
      s, pattern = pattern_guard(s, pattern, "find")
    end
    return find(s, pattern, init, plain)
  end,
  match = function(s, pattern, init)
    s, pattern = pattern_guard(s, pattern, "match")
    return match(s, pattern, init)
  end,
  gmatch = function(s, pattern)
    s, pattern = pattern_guard(s, pattern, "gmatch")
    return gmatch(s, pattern)
  end,
  gsub = function(s, pattern, replacement, n)
    s, pattern = pattern_guard(s, pattern, "gsub")
    return gsub(s, pattern, replacement, n)
  end,
}
strings.gfind = strings.gmatch

local function range_guard(from, to, name)
  if type(from) ~= "number" or type(to) ~= "number" or to - from > MAX_RANGE then
    error(name .. ": the range is not of numbers, or longer than " .. MAX_RANGE, 3)
  end
end

-- The length of a list, guarded: __len may say anything.
local function length(t, name)
  if type(t) ~= "table" then
    error("bad argument to '" .. name .. "' (table expected, got " .. type(t) .. ")", 3)
  end
  local n = #t
  range_guard(1, n, name)
  return n
end

local insert, remove, concat, sort, move, unpack = T.insert, T.remove, T.concat, T.sort, T.move, T.unpack

local tables = {
  pack = T.pack,
  insert = function(t, ...)
    length(t, "insert")
    return insert(t, ...)
  end,
  remove = function(t, ...)
    length(t, "remove")
    return remove(t, ...)
  end,
  concat = function(t, separator, i, j)
    i, j = i or 1, j or length(t, "concat")
    range_guard(i, j, "concat")
    return concat(t, separator, i, j)
  end,
  sort = function(t, less)
    length(t, "sort")
    return sort(t, less)
  end,
  move = function(a, from, to, at, b)
    range_guard(from, to, "move")
    return move(a, from, to, at, b)
  end,
  unpack = function(t, i, j)
    i, j = i or 1, j or length(t, "unpack")
    range_guard(i, j, "unpack")
    return unpack(t, i, j)
  end,
  getn = function(t)
    return length(t, "getn")
  end,
}

-- math without random: a replay must give the same results.
local maths = {}
for _, name in ipairs({
  "abs", "acos", "asin", "atan", "ceil", "cos", "deg", "exp", "floor", "fmod", "huge", "log",
  "max", "maxinteger", "min", "mininteger", "modf", "pi", "rad", "sin", "sqrt", "tan",
  "tointeger", "type", "ult",
}) do
  maths[name] = M[name]
end
maths.pow = function(x, y) return x ^ y end
maths.mod = M.fmod
maths.atan2 = M.atan
maths.log10 = function(x) return M.log(x, 10) end
maths.ldexp = function(m, e) return m * 2.0 ^ e end

local utf8s = {}
for _, name in ipairs({ "char", "charpattern", "codepoint", "len", "offset", "codes" }) do
  utf8s[name] = U[name]
end

-- bit, as in LuaJIT: 32 bits, signed.
local function signed(n)
  n = n & 0xFFFFFFFF
  return n >= 0x80000000 and n - 0x100000000 or n
end

local function integer(n)
  local i = type(n) == "number" and M.tointeger(n) or M.tointeger(M.floor(n + 0.5))
  return i & 0xFFFFFFFF
end

local function fold(operation)
  return function(a, ...)
    local n = integer(a)
    for i = 1, select("#", ...) do
      n = operation(n, integer((select(i, ...))))
    end
    return signed(n)
  end
end

local bits = {
  tobit = function(a) return signed(integer(a)) end,
  bnot = function(a) return signed(~integer(a)) end,
  band = fold(function(a, b) return a & b end),
  bor = fold(function(a, b) return a | b end),
  bxor = fold(function(a, b) return a ~ b end),
  lshift = function(a, n) return signed(integer(a) << (n & 31)) end,
  rshift = function(a, n) return signed(integer(a) >> (n & 31)) end,
  arshift = function(a, n) return signed(signed(integer(a)) >> (n & 31) | (integer(a) >= 0x80000000 and ~(-1 >> (n & 31)) or 0)) end,
  rol = function(a, n) a, n = integer(a), n & 31 return signed(a << n | a >> (32 - n)) end,
  ror = function(a, n) a, n = integer(a), n & 31 return signed(a >> n | a << (32 - n)) end,
  tohex = function(a, n)
    n = n or 8
    local h = format(n < 0 and "%08X" or "%08x", integer(a))
    return S.sub(h, -(n < 0 and -n or n))
  end,
}

-- The metatable of strings: methods are the guarded ones, and nobody gets hold of it.
-- What else is in it makes "10" + 1 a number, and stays.
local of_strings = debug.getmetatable("")
of_strings.__index = strings
of_strings.__metatable = false

local json_view = view(json)
views[json.null] = true

local base = {
  _VERSION = _VERSION,
  assert = assert,
  error = error,
  ipairs = ipairs,
  next = next,
  pairs = pairs,
  print = function() end,
  rawequal = rawequal,
  rawget = rawget,
  rawlen = rawlen,
  select = select,
  tonumber = tonumber,
  tostring = tostring,
  type = type,
  unpack = tables.unpack,
  getmetatable = getmetatable,
  setmetatable = function(t, of)
    if type(of) == "table" and rawget(of, "__gc") ~= nil then
      error("__gc is not for scripts", 2)
    end
    return setmetatable(t, of)
  end,
  rawset = function(t, key, value)
    if views[t] then
      error("the libraries cannot be changed", 2)
    end
    return rawset(t, key, value)
  end,
  require = function(name)
    if name ~= "json" then
      error("there is no module " .. tostring(name) .. "; a script can require only json", 2)
    end
    return json_view
  end,
  string = view(strings),
  table = view(tables),
  math = view(maths),
  utf8 = view(utf8s),
  bit = view(bits),
}

-- Running.

local started, over = nil, false

local function watch()
  local now = clock()
  if not started then
    started = now
  elseif now - started > cpu_seconds then
    over = true
    error("more than its CPU time", 0)
  end
end

local OF_GLOBALS = { __index = base, __metatable = false }

local chunk, problem = load("local _ENV = ...; " .. source, "=script", "t")
if not chunk then
  error(problem, 0)
end

local function run(entry, msg, topic)
  local globals = setmetatable({}, OF_GLOBALS)
  globals._G = globals
  chunk(globals)
  local f = globals.encodeInp or globals[entry]
  if type(f) ~= "function" then
    error("the script has no function encodeInp(msg, topic), nor " .. entry .. "(msg, topic)", 0)
  end
  local value = f(msg, topic)
  if type(value) == "table" and entry == "decode" then
    value = encode(value)
  elseif type(value) ~= "string" then
    local expected = entry == "decode" and "JSON text or a table" or "a string"
    error("the script returned " .. type(value) .. " where " .. expected .. " is expected", 0)
  end
  if #value > max_result then
    error("the script's result has " .. #value .. " bytes, more than " .. max_result, 0)
  end
  return value
end

sethook(watch, "", 1000)

return function(entry, msg, topic)
  started = nil
  local ok, value = pcall(run, entry, msg, topic)
  if ok then
    return OK, value
  elseif over then
    return CPU, ""
  elseif value == "not enough memory" then
    return MEMORY, ""
  elseif type(value) ~= "string" then
    value = "an error object of type " .. type(value)
  end
  -- An error of the libraries, where a tail call has left no line of the script to name.
  return ERROR, S.sub((gsub(value, "^sandbox:%d+: ", "")), 1, 300)
end
