// customers/acme.yaml · staging
import { answer } from "../../runtime/tiny-[DIGEST].js";

export default answer("tiny-acme-staging", [
  {
    id: "pixel",
    name: "Pixel",
    type: "pixel",
    requiredConsent: ["marketing"],
    settings: { accessToken: { secret: "PIXEL_TOKEN" }, pixelId: "123456789" },
  },
]);
