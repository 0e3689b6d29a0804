export class Counter {}
export default {};
