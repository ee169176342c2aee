-- Big-endian: int16 temperature × 100, uint16 humidity × 100, uint16 battery in mV.
function decode(msg, topic)
  if #msg ~= 6 then error("expected 6 bytes, got " .. #msg) end
  local temperature, humidity, battery = string.unpack(">i2I2I2", msg)
  return { temperature = temperature / 100, humidity = humidity / 100, battery = battery / 1000 }
end
