#include "libds/base/error.h"

namespace ds::detail {

void check_failed(const char* file, int line, const char* condition) {
  throw Error(ExitCode::kInternal, fmt::format("internal error at {}:{}: {} does not hold", file, line, condition));
}

}  // namespace ds::detail
