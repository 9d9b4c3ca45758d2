#include "libds/run/body_runner.h"

#include "libds/run/session.h"

namespace ds {

std::shared_ptr<BodyRunner> make_body_runner(std::shared_ptr<const Graph> body, const CompileOptions& options) {
  class SessionRunner final : public BodyRunner {
   public:
    SessionRunner(std::shared_ptr<const Graph> body, SessionOptions options) : session_(std::move(body), std::move(options)) {}
    std::vector<Tensor> run(std::span<const Tensor> inputs) override { return session_.run(inputs); }

   private:
    Session session_;
  };
  SessionOptions session;
  session.threads = options.threads;
  session.layouts = options.layouts;
  session.static_plan = options.body_plans;
  session.plan_after = 2;
  if (!options.body_plans) session.pipeline.clear();  // asked to run the graph as it is
  return std::make_shared<SessionRunner>(std::move(body), std::move(session));
}

}  // namespace ds
