// customers/bluebird.yaml · production
import { answer } from "../../runtime/tiny-[DIGEST].js";

export default answer("tiny-bluebird", []);
