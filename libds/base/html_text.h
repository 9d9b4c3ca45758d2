// Text inside pages that the programs write.
#pragma once

#include <string>
#include <string_view>

namespace ds {

// Text as HTML or XML content or attribute value; what is no UTF-8 and control characters are replaced.
std::string html_escaped(std::string_view text);

}  // namespace ds
