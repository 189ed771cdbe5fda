// Halves widened by their definition: the processor's stand-in for one instruction of the device.
#pragma once

inline float widen(Half x) {
  const unsigned sign = x.bits >> 15, exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  const float size = exponent == 31  ? (fraction ? NAN : INFINITY)
                     : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                     : std::ldexp(static_cast<float>(1024 + fraction),
                                                  static_cast<int>(exponent) - 25);
  return sign ? -size : size;
}
inline float widen(Bfloat x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, sizeof y);
  return y;
}
